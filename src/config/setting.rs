//! The types an argument can have: how each is read from words or TOML and shown as JSON.
//!
//! What a value means together with others is left to `resolve`; here only its form is checked.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::hub::{DatasetFile, is_repository};

/// How many values follow an argument's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// None or one boolean: the bare name means true.
    Flag,
    /// Exactly one.
    One,
    /// One or more; the name may be repeated.
    Many,
}

/// One value as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Token {
    /// A word of the command line, which has no type yet.
    Word(String),
    /// A string of a TOML file.
    Text(String),
    /// A number of a TOML file, digits without separators.
    Number(String),
    /// A boolean of a TOML file.
    Boolean(bool),
}

impl Token {
    /// The value and, if the file fixed it, its type; for messages.
    pub fn describe(&self) -> String {
        match self {
            Token::Word(text) => quoted(text),
            Token::Text(text) => format!("the string {}", quoted(text)),
            Token::Number(text) => format!("the number {text}"),
            Token::Boolean(value) => format!("the boolean {value}"),
        }
    }
}

/// All values written for one argument.
#[derive(Clone, Copy, Debug)]
pub struct Written<'a> {
    /// The values in order; none for a bare flag.
    pub tokens: &'a [Token],
    /// The folder of the file they stand in: relative paths start there. `None` on the command line.
    pub folder: Option<&'a Path>,
}

impl<'a> Written<'a> {
    fn single(&self) -> Option<&'a Token> {
        if let [token] = self.tokens {
            Some(token)
        } else {
            None
        }
    }
}

/// A type that an argument can have.
pub trait Setting: Sized {
    /// Name in the reference.
    const TYPE: &'static str;
    /// How many values it takes.
    const SHAPE: Shape = Shape::One;

    /// The value, or `None` if the tokens have another form.
    fn read(written: Written<'_>) -> Option<Self>;

    /// The value as it goes to `training_args.json`.
    fn show(&self) -> Value;
}

impl Setting for bool {
    const TYPE: &'static str = "bool";
    const SHAPE: Shape = Shape::Flag;

    fn read(written: Written<'_>) -> Option<Self> {
        match written.tokens {
            [] => Some(true),
            [Token::Word(word)] => boolean(word),
            [Token::Boolean(value)] => Some(*value),
            _ => None,
        }
    }

    fn show(&self) -> Value {
        Value::Bool(*self)
    }
}

/// The reference's spellings of a boolean, in any case.
pub fn boolean(word: &str) -> Option<bool> {
    match word.to_ascii_lowercase().as_str() {
        "yes" | "true" | "t" | "y" | "1" => Some(true),
        "no" | "false" | "f" | "n" | "0" => Some(false),
        _ => None,
    }
}

impl Setting for i64 {
    const TYPE: &'static str = "int";

    fn read(written: Written<'_>) -> Option<Self> {
        match written.single()? {
            Token::Word(text) | Token::Number(text) => text.parse().ok(),
            _ => None,
        }
    }

    fn show(&self) -> Value {
        Value::from(*self)
    }
}

impl Setting for f64 {
    const TYPE: &'static str = "float";

    fn read(written: Written<'_>) -> Option<Self> {
        match written.single()? {
            Token::Word(text) | Token::Number(text) => text.parse().ok(),
            _ => None,
        }
    }

    fn show(&self) -> Value {
        Value::from(*self)
    }
}

/// An integer or a float, as Python's `int | float`: whole values are shown as integers.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub struct Number(pub f64);

impl Setting for Number {
    const TYPE: &'static str = "int or float";

    fn read(written: Written<'_>) -> Option<Self> {
        f64::read(written).map(Number)
    }

    fn show(&self) -> Value {
        if self.0.fract() == 0.0 && self.0.abs() < 1e15 {
            Value::from(self.0 as i64)
        } else {
            Value::from(self.0)
        }
    }
}

impl Setting for String {
    const TYPE: &'static str = "str";

    fn read(written: Written<'_>) -> Option<Self> {
        match written.single()? {
            Token::Word(text) | Token::Text(text) => Some(text.clone()),
            _ => None,
        }
    }

    fn show(&self) -> Value {
        Value::from(self.as_str())
    }
}

impl Setting for PathBuf {
    const TYPE: &'static str = "path";

    fn read(written: Written<'_>) -> Option<Self> {
        // An empty one would be the present folder, which nobody means.
        let text = String::read(written).filter(|text| !text.is_empty())?;
        let is_elsewhere = text.starts_with('~') || DatasetFile::is_meant(Path::new(&text));
        match written.folder {
            // A path in a file belongs to the file's folder, so that the file works from everywhere.
            Some(folder) if !is_elsewhere => Some(folder.join(text)),
            _ => Some(PathBuf::from(text)),
        }
    }

    fn show(&self) -> Value {
        Value::from(self.to_string_lossy())
    }
}

impl<T: Setting> Setting for Option<T> {
    const TYPE: &'static str = T::TYPE;
    const SHAPE: Shape = T::SHAPE;

    fn read(written: Written<'_>) -> Option<Self> {
        if let [Token::Word(text) | Token::Text(text)] = written.tokens
            && ["none", "null"]
                .iter()
                .any(|none| text.eq_ignore_ascii_case(none))
        {
            return Some(None);
        }
        T::read(written).map(Some)
    }

    fn show(&self) -> Value {
        self.as_ref().map_or(Value::Null, T::show)
    }
}

/// Types that lists are made of.
pub trait Item: Setting {
    /// Name of the list in the reference.
    const LIST: &'static str;
}

impl Item for String {
    const LIST: &'static str = "list of str";
}

impl Item for PathBuf {
    const LIST: &'static str = "list of path";
}

/// Names of reporters. `none` is the empty list, as in the reference, where leaving it out means all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReporterNames(pub Option<Vec<String>>);

impl Setting for ReporterNames {
    const TYPE: &'static str = "list of str";
    const SHAPE: Shape = Shape::Many;

    fn read(written: Written<'_>) -> Option<Self> {
        let names = Vec::<String>::read(written)?;
        Some(Self(match names.as_slice() {
            [name] if name == "null" => None,
            [name] if name == "none" => Some(Vec::new()),
            _ => Some(names),
        }))
    }

    fn show(&self) -> Value {
        self.0.as_ref().map_or(Value::Null, Setting::show)
    }
}

/// A folder or file or, if there is none, a repository of the Hub: only `resolve` can tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Location {
    /// The folder or file.
    pub path: PathBuf,
    /// `owner/name`, if it was written so.
    pub repository: Option<String>,
    /// It is the repository; there is no such folder or file.
    pub is_on_hub: bool,
}

impl Location {
    /// A repository that is no folder.
    pub fn on_hub(name: &str) -> Self {
        Self {
            path: PathBuf::from(name),
            repository: Some(name.to_owned()),
            is_on_hub: true,
        }
    }
}

impl<T: Into<PathBuf>> From<T> for Location {
    fn from(path: T) -> Self {
        Self {
            path: path.into(),
            repository: None,
            is_on_hub: false,
        }
    }
}

impl Setting for Location {
    const TYPE: &'static str = "path or OWNER/NAME";

    fn read(written: Written<'_>) -> Option<Self> {
        let text = String::read(written)?;
        Some(Self {
            path: PathBuf::read(written)?,
            repository: is_repository(&text).then_some(text),
            is_on_hub: false,
        })
    }

    fn show(&self) -> Value {
        self.path.show()
    }
}

/// A file, or `NAME=FILE`: one of the files of a named set. A path that holds `=` itself needs a folder before it (`./a=b.csv`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedPath {
    /// The set; `None`: the one that has no name.
    pub name: Option<String>,
    /// The file.
    pub path: PathBuf,
}

impl Setting for NamedPath {
    const TYPE: &'static str = "path or NAME=path";

    fn read(written: Written<'_>) -> Option<Self> {
        let text = String::read(written)?;
        let (name, path) = match text.split_once('=') {
            Some((name, path)) if !name.contains(['/', '\\']) => (Some(name.to_owned()), path),
            _ => (None, text.as_str()),
        };
        let token = Token::Text(path.to_owned());
        let path = PathBuf::read(Written {
            tokens: std::slice::from_ref(&token),
            ..written
        })?;
        Some(Self { name, path })
    }

    fn show(&self) -> Value {
        let path = self.path.to_string_lossy();
        Value::from(match &self.name {
            Some(name) => format!("{name}={path}"),
            None => path.into_owned(),
        })
    }
}

impl Item for NamedPath {
    const LIST: &'static str = "list of path or NAME=path";
}

impl<T: Item> Setting for Vec<T> {
    const TYPE: &'static str = T::LIST;
    const SHAPE: Shape = Shape::Many;

    fn read(written: Written<'_>) -> Option<Self> {
        written
            .tokens
            .iter()
            .map(|token| {
                T::read(Written {
                    tokens: std::slice::from_ref(token),
                    ..written
                })
            })
            .collect()
    }

    fn show(&self) -> Value {
        self.iter().map(T::show).collect()
    }
}

/// What to continue from: true, false or a folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ResumeFrom {
    /// `false`
    Nothing,
    /// `true`: the newest checkpoint of the output folder.
    Newest,
    /// This checkpoint.
    Folder(PathBuf),
}

impl Setting for ResumeFrom {
    const TYPE: &'static str = "bool or path";

    fn read(written: Written<'_>) -> Option<Self> {
        let choice = match written.single()? {
            Token::Word(text) | Token::Text(text) => boolean(text),
            Token::Boolean(value) => Some(*value),
            Token::Number(_) => None,
        };
        match choice {
            Some(true) => Some(ResumeFrom::Newest),
            Some(false) => Some(ResumeFrom::Nothing),
            None => PathBuf::read(written).map(ResumeFrom::Folder),
        }
    }

    fn show(&self) -> Value {
        match self {
            ResumeFrom::Nothing => Value::Null,
            ResumeFrom::Newest => Value::Bool(true),
            ResumeFrom::Folder(path) => path.show(),
        }
    }
}

/// Foreign text in quotes, control characters escaped.
pub fn quoted(text: &str) -> String {
    let escaped: String = text
        .chars()
        .flat_map(|character| {
            if character.is_control() {
                character.escape_default().collect()
            } else {
                vec![character]
            }
        })
        .collect();
    format!("`{escaped}`")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<Token> {
        text.split_whitespace()
            .map(|word| Token::Word(word.to_owned()))
            .collect()
    }

    fn shown<T: Setting>(tokens: &[Token]) -> Option<String> {
        T::read(Written {
            tokens,
            folder: Some(Path::new("/runs")),
        })
        .map(|value| value.show().to_string())
    }

    #[test]
    fn words_are_read_by_the_type_of_the_argument() {
        type Show = fn(&[Token]) -> Option<String>;
        let cases: &[(Show, &str, Option<&str>)] = &[
            (shown::<bool>, "", Some("true")),
            (shown::<bool>, "Y", Some("true")),
            (shown::<bool>, "0", Some("false")),
            (shown::<bool>, "maybe", None),
            (shown::<i64>, "-1", Some("-1")),
            (shown::<i64>, "1.5", None),
            (shown::<i64>, "1 2", None),
            (shown::<f64>, "2.5e-1", Some("0.25")),
            (shown::<Number>, "10.0", Some("10")),
            (shown::<Number>, "0.5", Some("0.5")),
            (shown::<Option<f64>>, "None", Some("null")),
            (shown::<Option<String>>, "f1", Some("\"f1\"")),
            (shown::<Vec<String>>, "a b", Some("[\"a\",\"b\"]")),
            (shown::<PathBuf>, "a/b", Some("\"/runs/a/b\"")),
            (shown::<PathBuf>, "/a", Some("\"/a\"")),
            (shown::<PathBuf>, "~/a", Some("\"~/a\"")),
            (
                shown::<PathBuf>,
                "hf://datasets/o/n/a",
                Some("\"hf://datasets/o/n/a\""),
            ),
            (shown::<Location>, "o/n", Some("\"/runs/o/n\"")),
            (shown::<ResumeFrom>, "true", Some("true")),
            (shown::<ResumeFrom>, "no", Some("null")),
            (
                shown::<ResumeFrom>,
                "checkpoint-5",
                Some("\"/runs/checkpoint-5\""),
            ),
        ];
        for (show, text, expected) in cases {
            assert_eq!(show(&words(text)).as_deref(), *expected, "{text}");
        }
    }

    #[test]
    fn a_file_fixes_the_type_of_a_value() {
        let number = [Token::Number("5".to_owned())];
        let text = [Token::Text("5".to_owned())];
        assert_eq!(shown::<i64>(&number), Some("5".to_owned()));
        assert_eq!(shown::<i64>(&text), None);
        assert_eq!(shown::<String>(&number), None);
        assert_eq!(shown::<bool>(&[Token::Number("1".to_owned())]), None);
        assert_eq!(
            shown::<ResumeFrom>(&[Token::Boolean(true)]),
            Some("true".to_owned())
        );
    }

    #[test]
    fn control_characters_are_escaped_when_quoted() {
        assert_eq!(quoted("a\u{1b}[31m\n"), "`a\\u{1b}[31m\\n`");
    }
}
