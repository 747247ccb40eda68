//! Data files into a table, by extension: JSON lines, CSV, TSV, Parquet.
//!
//! A reader turns bytes into cells and says where it is; types, nulls and row limits belong to the table.

use std::fs::File;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use super::table::{Table, TableBuilder};
use crate::error::{Failure, Kind};

mod csv;
mod jsonl;
mod parquet;
mod stream;

pub use stream::FileStream;

/// A data file that is being read from its beginning.
trait Reader: Send {
    /// Reads rows until the builder is full or the file ends, and says where they are.
    fn fill(&mut self, builder: &mut TableBuilder) -> Result<()>;
}

type Open = fn(&Path) -> Result<Box<dyn Reader>>;

/// Extension and reader; the order is that of messages.
const READERS: &[(&str, Open)] = &[
    ("jsonl", jsonl::open_lines),
    ("json", jsonl::open_lines),
    ("csv", csv::open_commas),
    ("tsv", csv::open_tabs),
    ("parquet", parquet::open_rows),
];

/// Reads files, one after the other, into one table of at most `max_rows` rows.
pub fn read(files: &[PathBuf], max_rows: Option<usize>) -> Result<Table> {
    ensure!(!files.is_empty(), Failure::usage("no data file was given"));
    ensure!(
        max_rows != Some(0),
        Failure::usage("a limit of 0 rows leaves no data")
    );
    let readers: Vec<Open> = files
        .iter()
        .map(|path| reader_of(path))
        .collect::<Result<_>>()?;
    let mut builder = TableBuilder::new(max_rows);
    for (path, open) in files.iter().zip(readers) {
        if builder.room() == 0 {
            break;
        }
        let before = builder.rows();
        open(path)?.fill(&mut builder)?;
        ensure!(builder.rows() > before, no_rows(path));
    }
    Ok(builder.finish())
}

fn no_rows(path: &Path) -> Failure {
    Failure::data(format!("{}: the file holds no rows", path.display()))
}

fn reader_of(path: &Path) -> Result<Open> {
    let extension = path
        .extension()
        .and_then(|extension| extension.to_str())
        .unwrap_or_default()
        .to_lowercase();
    let found = READERS.iter().find(|(name, _)| *name == extension);
    let (_, reader) = found.ok_or_else(|| {
        let known: Vec<String> = READERS.iter().map(|(name, _)| format!(".{name}")).collect();
        Failure::new(
            Kind::Usage,
            format!("{}: unknown kind of data file", path.display()),
        )
        .hint(format!(
            "the file name must end in one of {}",
            known.join(", ")
        ))
    })?;
    Ok(*reader)
}

/// Opens a data file that has content.
fn open(path: &Path) -> Result<File> {
    let file = match File::open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return Err(Failure::data(format!("{}: no such file", path.display())).into());
        }
        opened => opened.with_context(|| format!("opening {}", path.display()))?,
    };
    let metadata = file
        .metadata()
        .with_context(|| format!("reading {}", path.display()))?;
    ensure!(
        !metadata.is_dir(),
        Failure::data(format!("{}: a folder; expected a file", path.display()))
    );
    ensure!(
        !metadata.is_file() || metadata.len() > 0,
        Failure::data(format!("{}: the file is empty", path.display()))
    );
    Ok(file)
}

/// The position of the first byte that is not UTF-8, from 1.
fn utf8_column(error: std::str::Utf8Error) -> usize {
    error.valid_up_to() + 1
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::PathBuf;

    use tempfile::TempDir;

    use super::read;
    use crate::data::{Dataset, Table, Value};
    use crate::error::{Kind, kind_of};

    /// Files in a temporary folder; the order is kept.
    pub(super) fn write(files: &[(&str, &[u8])]) -> (TempDir, Vec<PathBuf>) {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let paths = files.iter().map(|(name, content)| {
            let path = folder.path().join(name);
            fs::write(&path, content).expect("a file is written");
            path
        });
        let paths = paths.collect();
        (folder, paths)
    }

    pub(super) fn table(files: &[(&str, &[u8])]) -> Table {
        let (_folder, paths) = write(files);
        read(&paths, None).expect("the files are good")
    }

    /// The error of reading and using all columns, without the folder's name.
    pub(super) fn error(files: &[(&str, &[u8])]) -> String {
        let (folder, paths) = write(files);
        let all = |table: Table| {
            table
                .columns()
                .iter()
                .try_for_each(|(name, _)| table.usable(name).map(|_| ()))
        };
        let error = read(&paths, None).and_then(all).expect_err("a bad file");
        assert_eq!(kind_of(&error), Kind::Data, "{error:#}");
        format!("{error:#}").replace(&format!("{}/", folder.path().display()), "")
    }

    pub(super) fn column(table: &Table, name: &str) -> Vec<Value> {
        let column = table.usable(name).expect("a good column");
        (0..column.len()).map(|row| column.get(row)).collect()
    }

    #[test]
    fn files_of_different_formats_are_one_table() {
        let table = table(&[
            ("a.csv", b"x,label\n1,0\n2,1\n"),
            ("b.jsonl", b"{\"x\": 2.5, \"label\": true}\n"),
            ("c.tsv", b"label\tx\n1\t7\n"),
        ]);
        assert_eq!(column(&table, "x"), [1.0, 2.0, 2.5, 7.0].map(Value::Float));
        assert_eq!(column(&table, "label"), [0, 1, 1, 1].map(Value::Int));
        let places: Vec<String> = (0..4).map(|row| table.locate(row)).collect();
        let names = ["a.csv:2", "a.csv:3", "b.jsonl:1", "c.tsv:2"];
        assert!(
            places
                .iter()
                .zip(names)
                .all(|(place, name)| place.ends_with(name)),
            "{places:?}"
        );
    }

    #[test]
    fn a_row_limit_holds_over_all_files() {
        let (_folder, paths) = write(&[
            ("a.jsonl", b"{\"x\":1}\n{\"x\":2}\n"),
            ("b.jsonl", b"{\"x\":3}\n{\"x\":4}\n"),
        ]);
        for (limit, expected) in [(1, 1), (2, 2), (3, 3), (4, 4), (9, 4)] {
            assert_eq!(
                read(&paths, Some(limit)).expect("good files").rows(),
                expected
            );
        }
    }

    #[test]
    fn bad_files_are_named() {
        assert_eq!(error(&[("a.jsonl", b"")]), "a.jsonl: the file is empty");
        assert_eq!(
            error(&[("a.jsonl", b"\n  \n")]),
            "a.jsonl: the file holds no rows"
        );
        assert_eq!(
            error(&[("a.csv", b"x,y\n")]),
            "a.csv: the file holds no rows"
        );
        let mixed: &[(&str, &[u8])] = &[("a.csv", b"x\n1\n"), ("b.jsonl", b"{\"x\": \"one\"}\n")];
        assert_eq!(
            error(mixed),
            "b.jsonl:1: field \"x\" is a string; expected an integer (as in the rows before)"
        );
    }

    #[test]
    fn a_missing_file_a_folder_and_an_unknown_extension_are_refused() {
        let (folder, _) = write(&[]);
        let missing = read(&[folder.path().join("no.jsonl")], None).expect_err("no file");
        assert!(
            missing.to_string().ends_with("no.jsonl: no such file"),
            "{missing}"
        );
        fs::create_dir(folder.path().join("f.jsonl")).expect("a folder");
        let directory = read(&[folder.path().join("f.jsonl")], None).expect_err("a folder");
        assert!(
            directory
                .to_string()
                .ends_with("f.jsonl: a folder; expected a file"),
            "{directory}"
        );
        let unknown = read(&["notes.txt".into()], None).expect_err("an unknown extension");
        assert_eq!(kind_of(&unknown), Kind::Usage);
        assert_eq!(
            crate::error::hints_of(&unknown),
            ["the file name must end in one of .jsonl, .json, .csv, .tsv, .parquet"]
        );
    }
}
