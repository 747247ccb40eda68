//! The Hugging Face Hub as arguments and environment name it: repositories, files of data sets, and where and as whom it
//! is asked. Nothing here talks to it.

use std::env;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// How files of the Hub are written where a path is expected, as pandas, polars and `datasets` write them.
const SCHEME: &str = "hf://";
const DEFAULT_ENDPOINT: &str = "https://huggingface.co";
/// The revision that is meant when none is named.
pub const DEFAULT_REVISION: &str = "main";

/// A value that only the Hub may see: it is not shown by `Debug`, and whoever writes it out says so by name.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Hides a text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text, for the one who must have it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("<SECRET>")
    }
}

/// A model or data set, as of a revision: branch, tag or commit.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Repository {
    /// `owner/name`.
    pub name: String,
    /// Branch, tag or commit.
    pub revision: String,
}

/// A file of a data set.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct DatasetFile {
    /// The data set.
    pub dataset: Repository,
    /// Its path there.
    pub path: String,
}

impl DatasetFile {
    /// Whether a path means a file of the Hub.
    pub fn is_meant(path: &Path) -> bool {
        path.to_str().is_some_and(|text| text.starts_with(SCHEME))
    }

    /// Reads `hf://datasets/OWNER/NAME[@REVISION]/PATH`; `None`: it has another form.
    pub fn parse(path: &Path) -> Option<Self> {
        let rest = path.to_str()?.strip_prefix(SCHEME)?;
        let mut parts = rest.strip_prefix("datasets/")?.splitn(3, '/');
        let (owner, name, path) = (parts.next()?, parts.next()?, parts.next()?);
        let (name, revision) = name.split_once('@').unwrap_or((name, DEFAULT_REVISION));
        let name = format!("{owner}/{name}");
        let is_plain = |part: &str| !["", ".", ".."].contains(&part) && !part.contains('\\');
        (is_repository(&name) && is_revision(revision) && path.split('/').all(is_plain)).then(
            || {
                Self {
                    dataset: Repository {
                        name,
                        // A slash in a branch would end the name.
                        revision: revision.replace("%2F", "/").replace("%2f", "/"),
                    },
                    path: path.to_owned(),
                }
            },
        )
    }
}

/// Whether a text is `owner/name` as the Hub allows it.
pub fn is_repository(text: &str) -> bool {
    text.split_once('/')
        .is_some_and(|(owner, name)| is_name(owner) && is_name(name) && text.len() <= 96)
}

/// Whether a text may be one of the two parts of a repository's name.
pub fn is_name(text: &str) -> bool {
    let is_allowed = |letter: char| letter.is_ascii_alphanumeric() || "-_.".contains(letter);
    let is_edge = |letter: char| "-.".contains(letter);
    !text.is_empty()
        && text.len() <= 96
        && text.chars().all(is_allowed)
        && !text.starts_with(is_edge)
        && !text.ends_with(is_edge)
        && !text.contains("--")
        && !text.contains("..")
        && !text.ends_with(".git")
}

/// Whether a text can be a branch, tag or commit.
pub fn is_revision(text: &str) -> bool {
    let is_allowed = |letter: char| letter.is_ascii_graphic() && !"~^:?*[\\".contains(letter);
    !text.is_empty()
        && text.chars().all(is_allowed)
        && !text.contains("..")
        && !text.starts_with(['-', '/'])
        && !text.ends_with('/')
}

/// Where the Hub is, and what of it this machine has, as the Python client reads them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HubSurroundings {
    /// `HF_ENDPOINT`.
    pub endpoint: String,
    /// `HF_HUB_CACHE`, else `HF_HOME/hub`; `None`: there is no home folder.
    pub cache: Option<PathBuf>,
    /// `HF_TOKEN`, else the file that a login leaves.
    pub token: Option<Secret>,
    /// `HF_HUB_OFFLINE` or `TRANSFORMERS_OFFLINE`.
    pub offline: bool,
}

impl HubSurroundings {
    /// Of this process; `caches` is where caches belong.
    pub fn read(caches: Option<&Path>) -> Self {
        Self::of(&|name| env::var(name).ok(), caches)
    }

    /// From variables; an empty one counts as absent.
    fn of(variable: &dyn Fn(&str) -> Option<String>, caches: Option<&Path>) -> Self {
        let first = |names: &[&str]| {
            let mut values = names.iter().filter_map(|name| variable(name));
            values.find(|value| !value.trim().is_empty())
        };
        let is_set = |name: &str| {
            let value = variable(name).unwrap_or_default().to_ascii_uppercase();
            ["1", "ON", "YES", "TRUE"].contains(&value.as_str())
        };
        let home = first(&["HF_HOME"]).map(PathBuf::from);
        let home = home.or_else(|| caches.map(|caches| caches.join("huggingface")));
        let cache = first(&["HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"]).map(PathBuf::from);
        let endpoint = first(&["HF_ENDPOINT"]);
        let token_file = first(&["HF_TOKEN_PATH"]).map(PathBuf::from);
        let token_file = token_file.or_else(|| Some(home.as_ref()?.join("token")));
        let token = || first(&["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"]);
        let token = match is_set("HF_HUB_DISABLE_IMPLICIT_TOKEN") {
            true => None,
            false => token().or_else(|| fs::read_to_string(token_file?).ok()),
        };
        Self {
            endpoint: endpoint.map_or(DEFAULT_ENDPOINT.to_owned(), |text| {
                text.trim().trim_end_matches('/').to_owned()
            }),
            cache: cache.or_else(|| Some(home?.join("hub"))),
            token: token
                .map(|text| text.trim().to_owned())
                .filter(|text| !text.is_empty())
                .map(Secret),
            offline: is_set("HF_HUB_OFFLINE") || is_set("TRANSFORMERS_OFFLINE"),
        }
    }
}

/// Variables that hold the token; a run that has read it does not hand them on.
pub const TOKEN_VARIABLES: &[&str] = &["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_that_the_hub_allows() {
        for (text, expected) in [
            ("owner/name", true),
            ("o-w.n_er/na.me-1_b", true),
            ("name", false),
            ("a/b/c", false),
            ("/name", false),
            ("owner/", false),
            ("../name", false),
            ("owner/.name", false),
            ("owner/na--me", false),
            ("owner/name.git", false),
            ("owner/na me", false),
            ("./name", false),
        ] {
            assert_eq!(is_repository(text), expected, "{text}");
        }
        assert!(!is_repository(&format!("o/{}", "n".repeat(95))));
    }

    #[test]
    fn files_of_data_sets_are_told_from_paths() {
        let cases = [
            (
                "hf://datasets/o/n/data/train.csv",
                Some(("o/n", "main", "data/train.csv")),
            ),
            ("hf://datasets/o/n@v1.0/a", Some(("o/n", "v1.0", "a"))),
            (
                "hf://datasets/o/n@refs%2Fpr%2F1/a",
                Some(("o/n", "refs/pr/1", "a")),
            ),
            ("hf://datasets/o/n", None),
            ("hf://datasets/o/n/", None),
            ("hf://datasets/o/n/../a", None),
            ("hf://datasets/o/n@/a", None),
            ("hf://o/n/a", None),
            ("datasets/o/n/a", None),
        ];
        for (text, expected) in cases {
            let file = DatasetFile::parse(Path::new(text));
            let found = file.as_ref().map(|file| {
                let Repository { name, revision } = &file.dataset;
                (name.as_str(), revision.as_str(), file.path.as_str())
            });
            assert_eq!(found, expected, "{text}");
        }
        assert!(DatasetFile::is_meant(Path::new("hf://x")));
        assert!(!DatasetFile::is_meant(Path::new("/hf/x")));
    }

    #[test]
    fn the_environment_is_read_as_the_python_client_reads_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let home = folder.path().to_str().expect("a name");
        fs::write(folder.path().join("token"), " hf_file\n").expect("a file");
        let read = |variables: &[(&str, &str)]| {
            let find = |name: &str| {
                let found = variables.iter().find(|(known, _)| *known == name);
                found.map(|(_, value)| (*value).to_owned())
            };
            HubSurroundings::of(&find, Some(Path::new("/caches")))
        };
        let hub = read(&[]);
        assert_eq!(hub.endpoint, "https://huggingface.co");
        assert_eq!(hub.cache, Some("/caches/huggingface/hub".into()));
        assert_eq!((hub.token, hub.offline), (None, false));
        let hub = read(&[("HF_HOME", home), ("HF_ENDPOINT", "http://h:1/")]);
        assert_eq!(hub.endpoint, "http://h:1");
        assert_eq!(hub.cache, Some(folder.path().join("hub")));
        assert_eq!(hub.token, Some(Secret::new("hf_file")));
        let hub = read(&[
            ("HF_HOME", home),
            ("HF_HUB_CACHE", "/c"),
            ("HF_TOKEN", "hf_a\n"),
            ("HF_HUB_OFFLINE", "yes"),
        ]);
        assert_eq!((hub.cache, hub.offline), (Some("/c".into()), true));
        assert_eq!(hub.token, Some(Secret::new("hf_a")));
        let hub = read(&[("HF_TOKEN", "a"), ("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")]);
        assert_eq!(hub.token, None);
        assert_eq!(format!("{:?}", Secret::new("hf_a")), "<SECRET>");
    }
}
