//! A Rust file as the tidy rules read it: its code without comments, strings and tests, and its string literals.

use std::fs;
use std::path::{Path, PathBuf};

/// One file under `src`.
pub struct Source {
    /// Path below `src`, with `/`.
    pub path: String,
    /// The file as it is.
    pub text: String,
    /// The same lines with comments, the insides of literals and test modules blanked.
    pub code: String,
    /// String literals outside tests: line and content.
    pub strings: Vec<(usize, String)>,
}

impl Source {
    /// Reads `text` as the file `path`.
    pub fn new(path: &str, text: &str) -> Self {
        let (mut code, mut strings) = split(text);
        for span in test_modules(&code) {
            let lines = line_of(&code, span.start)..=line_of(&code, span.end);
            strings.retain(|(line, _)| !lines.contains(line));
            blank(&mut code, span);
        }
        let code = code.into_iter().collect();
        Self {
            path: path.to_owned(),
            text: text.to_owned(),
            code,
            strings,
        }
    }

    /// First folder below `src`, or the file's own name without its ending.
    pub fn module(&self) -> &str {
        self.path
            .split('/')
            .next()
            .map_or("", |name| name.trim_end_matches(".rs"))
    }

    /// Lines of code, numbered from 1.
    pub fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.code
            .lines()
            .enumerate()
            .map(|(index, line)| (index + 1, line))
    }

    /// `src/path:line`.
    pub fn place(&self, line: usize) -> String {
        format!("src/{}:{line}", self.path)
    }
}

/// All Rust files under `src`, without those that only tests compile.
pub fn sources(root: &Path) -> Vec<Source> {
    let folder = root.join("src");
    let mut sources: Vec<Source> = files(&folder)
        .into_iter()
        .filter(|path| path.extension().is_some_and(|ending| ending == "rs"))
        .map(|path| {
            let text = fs::read_to_string(&path).expect("a text file");
            let name = path
                .strip_prefix(&folder)
                .expect("a path below src")
                .to_string_lossy()
                .replace('\\', "/");
            Source::new(&name, &text)
        })
        .collect();
    let tests: Vec<String> = sources.iter().flat_map(test_files).collect();
    sources.retain(|source| !tests.contains(&source.path));
    assert!(
        sources.len() > 20,
        "the walk over src found only {} files",
        sources.len()
    );
    sources
}

/// All files below a folder, build outputs left out, in order.
pub fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let Ok(entries) = fs::read_dir(folder) else {
        return found;
    };
    for entry in entries {
        let path = entry.expect("an entry").path();
        if path.is_dir() && path.file_name().is_some_and(|name| name != "target") {
            found.extend(files(&path));
        } else if path.is_file() {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// Files that `#[cfg(test)] mod name;` names.
fn test_files(source: &Source) -> Vec<String> {
    let folder = source
        .path
        .rsplit_once('/')
        .map_or(String::new(), |(folder, _)| format!("{folder}/"));
    let mut lines = source.code.lines().map(str::trim);
    let mut found = Vec::new();
    while let Some(line) = lines.next() {
        if line != "#[cfg(test)]" {
            continue;
        }
        let declared = lines.next().and_then(|line| {
            line.split("mod ")
                .nth(1)?
                .strip_suffix(';')
                .map(str::to_owned)
        });
        found.extend(declared.map(|name| format!("{folder}{name}.rs")));
    }
    found
}

fn line_of(code: &[char], position: usize) -> usize {
    1 + code[..position.min(code.len())]
        .iter()
        .filter(|letter| **letter == '\n')
        .count()
}

fn blank(code: &mut [char], span: std::ops::Range<usize>) {
    for letter in &mut code[span] {
        if *letter != '\n' {
            *letter = ' ';
        }
    }
}

/// Where `#[cfg(test)] mod name { ... }` stands.
fn test_modules(code: &[char]) -> Vec<std::ops::Range<usize>> {
    let text: String = code.iter().collect();
    let mut spans = Vec::new();
    for (start, marker) in text.match_indices("#[cfg(test)]") {
        let rest = &text[start + marker.len()..];
        let Some(open) = rest.find('{') else { continue };
        if rest[..open].contains("mod ") && !rest[..open].contains(';') {
            // `code` holds one char for each char of `text`; count chars, not bytes.
            let start = text[..start].chars().count();
            let open = start + marker.len() + rest[..open].chars().count();
            spans.push(start..closing(code, open));
        }
    }
    spans
}

/// Position after the brace that closes the one at `open`.
pub fn closing(code: &[char], open: usize) -> usize {
    let mut depth = 0;
    for (position, letter) in code.iter().enumerate().skip(open) {
        match letter {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return position + 1;
        }
    }
    code.len()
}

/// Blanks comments and the insides of literals; collects strings.
fn split(text: &str) -> (Vec<char>, Vec<(usize, String)>) {
    let letters: Vec<char> = text.chars().collect();
    let mut code = letters.clone();
    let mut strings = Vec::new();
    let mut position = 0;
    while position < letters.len() {
        let end = literal_end(&letters, position);
        match end {
            Some((end, kind)) => {
                if kind == Kind::Text {
                    strings.push((
                        line_of(&letters, position),
                        content(&letters[position..end]),
                    ));
                }
                blank(&mut code, position..end);
                position = end;
            }
            None => position += 1,
        }
    }
    (code, strings)
}

#[derive(PartialEq)]
enum Kind {
    Comment,
    Text,
    Letter,
}

/// If a comment or a literal begins at `position`: where it ends.
fn literal_end(letters: &[char], position: usize) -> Option<(usize, Kind)> {
    let at = |offset: usize| letters.get(position + offset).copied().unwrap_or('\0');
    match (at(0), at(1)) {
        ('/', '/') => Some((find(letters, position, "\n"), Kind::Comment)),
        ('/', '*') => Some((find(letters, position + 2, "*/") + 2, Kind::Comment)),
        ('"', _) => Some((quoted_end(letters, position + 1, '"'), Kind::Text)),
        ('r', '"' | '#') if position == 0 || !is_word(letters[position - 1]) => {
            let hashes = letters[position + 1..]
                .iter()
                .take_while(|letter| **letter == '#')
                .count();
            let is_string = at(1 + hashes) == '"';
            let end = format!("\"{}", "#".repeat(hashes));
            is_string.then(|| {
                (
                    find(letters, position + hashes + 2, &end) + end.len(),
                    Kind::Text,
                )
            })
        }
        ('\'', '\\') => Some((quoted_end(letters, position + 1, '\''), Kind::Letter)),
        ('\'', _) if at(2) == '\'' => Some((position + 3, Kind::Letter)),
        _ => None,
    }
}

fn is_word(letter: char) -> bool {
    letter.is_alphanumeric() || letter == '_'
}

fn find(letters: &[char], from: usize, wanted: &str) -> usize {
    let wanted: Vec<char> = wanted.chars().collect();
    let tail = &letters[from.min(letters.len())..];
    tail.windows(wanted.len())
        .position(|window| window == wanted)
        .map_or(letters.len(), |offset| from + offset)
}

fn quoted_end(letters: &[char], mut position: usize, quote: char) -> usize {
    while position < letters.len() && letters[position] != quote {
        position += if letters[position] == '\\' { 2 } else { 1 };
    }
    (position + 1).min(letters.len())
}

fn content(literal: &[char]) -> String {
    let text: String = literal.iter().collect();
    text.trim_start_matches('r')
        .trim_matches('#')
        .trim_matches('"')
        .to_owned()
}
