//! The 93 behaviours of the reference that are worth a test (specification, section 8): each has a test that carries its
//! number, in a comment `Row 17` or `Rows 8 to 12, 70 and 74`, or in its name, or stands here with the reason why it cannot have one.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

const NUM_ROWS: u32 = 93;

/// Rows that cannot apply here.
const WITHOUT_TEST: &[(u32, &str)] = &[
    (
        14,
        "loaders are made by the trainer, of data sets: there is none without one",
    ),
    (
        77,
        "grouping by length over several processes: there is one so far",
    ),
    (78, "gathering from several processes: there is one so far"),
    (79, "samplers of several processes: there is one so far"),
    (80, "shards of several processes: there is one so far"),
    (81, "shards of several processes: there is one so far"),
    (90, "there is no search for hyper-parameters yet"),
];

fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder").flatten() {
        let path = entry.path();
        let is_built = path.ends_with("target");
        if path.is_dir() && !is_built {
            files(&path, found);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            found.push(path);
        }
    }
}

/// The numbers after each `Row ` or `Rows ` of a comment.
fn rows(comment: &str) -> BTreeSet<u32> {
    let mut all = BTreeSet::new();
    let lists = comment.split("Row").skip(1);
    let lists = lists.filter_map(|rest| rest.strip_prefix("s ").or_else(|| rest.strip_prefix(' ')));
    for list in lists {
        let (mut last, mut is_range) = (None, false);
        for word in list.split_whitespace() {
            let number = word.trim_end_matches([',', ':', '.', ';', ')']);
            match (word, number.parse::<u32>()) {
                ("and", _) => {}
                ("to", _) => is_range = true,
                (_, Ok(number)) => {
                    let from = last.filter(|_| is_range).unwrap_or(number);
                    all.extend(from..=number);
                    (last, is_range) = (Some(number), false);
                    if word.ends_with([':', '.', ';', ')']) {
                        break;
                    }
                }
                _ => break,
            }
        }
    }
    all
}

#[test]
fn numbers_are_read_from_comments() {
    for (comment, expected) in [
        ("/// Row 58: there is a loss", &[58][..]),
        ("//! Rows 8 to 10, 70 and 74: how many", &[8, 9, 10, 70, 74]),
        ("/// Rows 52 and 53.", &[52, 53]),
        ("// a row 17 of a file", &[]),
        ("/// Row 45 and what follows 12", &[45]),
    ] {
        let found: Vec<u32> = rows(comment).into_iter().collect();
        assert_eq!(found, expected, "{comment}");
    }
}

#[test]
fn every_row_has_a_test_or_a_reason() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut sources = Vec::new();
    for folder in ["src", "tests", "plugins"] {
        files(&root.join(folder), &mut sources);
    }
    let mut tested = BTreeSet::new();
    for path in sources
        .iter()
        .filter(|path| !path.ends_with("tests/rows.rs"))
    {
        let text = fs::read_to_string(path).expect("a source");
        let lines = || text.lines().map(str::trim_start);
        let comments = lines().filter(|line| line.starts_with("//"));
        comments.for_each(|line| tested.extend(rows(line)));
        let names = lines().filter_map(|line| line.strip_prefix("fn row_")?.split_once('_'));
        tested.extend(names.filter_map(|(number, _)| number.parse::<u32>().ok()));
    }
    let excused: BTreeSet<u32> = WITHOUT_TEST.iter().map(|(row, _)| *row).collect();
    let twice: Vec<_> = tested.intersection(&excused).collect();
    assert!(
        twice.is_empty(),
        "tested, and said to be without a test: {twice:?}"
    );
    let missing: Vec<u32> = (1..=NUM_ROWS)
        .filter(|row| !tested.contains(row) && !excused.contains(row))
        .collect();
    assert!(missing.is_empty(), "neither test nor reason: {missing:?}");
    assert_eq!(excused.len(), WITHOUT_TEST.len());
}
