//! What of the architecture's invariants (crate documentation) a text can show: which module names which, where unsafe
//! code, prints, environment and file names stand, sizes, headers, words that do not belong here.
//!
//! Each rule is a function from one file to its violations. `rules_can_fail` gives every rule a file that breaks it.

mod source;

use std::fs;
use std::path::{Path, PathBuf};

use source::{Source, closing, files, sources};

/// The modules and their levels; a module may name those below it.
const LEVELS: &[(&str, u8)] = &[
    ("api", 7),
    ("main", 6),
    ("engine", 6),
    ("wire", 6),
    ("cli", 5),
    ("config", 4),
    ("trainer", 4),
    ("plugin", 4),
    ("amp", 2),
    ("hub", 2),
    ("data", 2),
    ("model", 2),
    ("loss", 2),
    ("optim", 2),
    ("metric", 2),
    ("callback", 2),
    ("report", 2),
    ("checkpoint", 1),
    ("torch", 0),
    ("error", 0),
];

/// Exceptions: who may name whom on its own level, or above.
const SIDEWAYS: &[(&str, &str, &str)] = &[
    ("model", "data", "a model reads a batch"),
    ("loss", "data", "labels are columns of a batch"),
    ("loss", "model", "a loss reads the outputs of a model"),
    ("metric", "data", "labels are columns of a batch"),
    ("metric", "model", "a metric reads the outputs of a model"),
    ("torch", "error", "both are at the bottom"),
];

/// Parts that the loop must receive as boxes (I1).
const PARTS: &[&str] = &["loss", "optim", "report", "model", "metric"];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn level(module: &str) -> Option<u8> {
    LEVELS
        .iter()
        .find(|(name, _)| *name == module)
        .map(|(_, level)| *level)
}

/// What stands after `crate::` in each place: line and path, one for each name of a list in braces.
fn crate_paths(source: &Source) -> Vec<(usize, String)> {
    let code = &source.code;
    let mut found = Vec::new();
    for (start, prefix) in code.match_indices("crate::") {
        let line = 1 + code[..start].matches('\n').count();
        let rest: Vec<char> = code[start + prefix.len()..].chars().collect();
        let paths = if rest.first() == Some(&'{') {
            let list: String = rest[1..closing(&rest, 0) - 1].iter().collect();
            top_level_items(&list)
        } else {
            vec![
                rest.iter()
                    .take_while(|letter| letter.is_alphanumeric() || matches!(letter, '_' | ':'))
                    .collect(),
            ]
        };
        found.extend(paths.into_iter().map(|path| (line, path)));
    }
    found
}

/// The comma-separated items of a list, what stands in inner braces left out.
fn top_level_items(list: &str) -> Vec<String> {
    let mut items = vec![String::new()];
    let mut depth = 0;
    for letter in list.chars() {
        match letter {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => items.push(String::new()),
            _ if depth == 0 => items.last_mut().expect("one item").push(letter),
            _ => {}
        }
    }
    items
        .iter()
        .map(|item| item.trim().to_owned())
        .filter(|item| !item.is_empty())
        .collect()
}

fn dependencies_point_down(source: &Source) -> Vec<String> {
    let module = source.module();
    if module == "lib" {
        return Vec::new();
    }
    let Some(own) = level(module) else {
        return vec![format!(
            "src/{}: {module} has no level; add it to the architecture page and to this test",
            source.path
        )];
    };
    let names = |(line, path): (usize, String)| {
        let named = path.split("::").next().unwrap_or("").to_owned();
        let below = level(&named).is_none_or(|level| level < own);
        let excepted = SIDEWAYS.iter().any(|(from, to, _)| {
            *from == module && (path == *to || path.starts_with(&format!("{to}::")))
        });
        (named != module && !below && !excepted)
            .then(|| format!("{}: {module} names {named}", source.place(line)))
    };
    crate_paths(source).into_iter().filter_map(names).collect()
}

/// I1: of the parts, the loop names what stands in their `mod.rs` (traits and plain types), no built-in's module.
fn the_loop_receives_boxes(source: &Source) -> Vec<String> {
    if source.module() != "trainer" {
        return Vec::new();
    }
    let concrete = |(line, path): (usize, String)| {
        let mut names = path.split("::");
        let part = names.next().filter(|part| PARTS.contains(part))?;
        let item = names
            .next()
            .filter(|item| item.starts_with(char::is_lowercase) && names.next().is_some())?;
        Some(format!(
            "{}: the loop names {part}::{item}",
            source.place(line)
        ))
    };
    crate_paths(source)
        .into_iter()
        .filter_map(concrete)
        .collect()
}

/// Lines of code that hold one of `words`, outside the files where they belong.
fn only_in(source: &Source, words: &[&str], belongs: &dyn Fn(&str) -> bool) -> Vec<String> {
    if belongs(&source.path) {
        return Vec::new();
    }
    let held = |(line, code): (usize, &str)| {
        let word = words.iter().find(|word| has_word(code, word))?;
        Some(format!("{}: {word}", source.place(line)))
    };
    source.lines().filter_map(held).collect()
}

/// Whether `word` stands in `code` and is not the end of a longer one.
fn has_word(code: &str, word: &str) -> bool {
    let is_word = |letter: char| letter.is_alphanumeric() || letter == '_';
    let starts =
        |position: usize| !word.starts_with(is_word) || !code[..position].ends_with(is_word);
    let ends = |position: usize| {
        !word.ends_with(is_word) || !code[position + word.len()..].starts_with(is_word)
    };
    code.match_indices(word)
        .any(|(position, _)| starts(position) && ends(position))
}

/// I3.
fn unsafe_stays_in_torch(source: &Source) -> Vec<String> {
    let words = ["unsafe", "unsafe_code", "extern \"C\"", "no_mangle"];
    only_in(source, &words, &|path| {
        path.starts_with("torch/") || path == "plugin/engine.rs"
    })
}

/// I3: the exceptions are one function each.
fn one_unsafe_block_outside(source: &Source) -> Vec<String> {
    let blocks = source
        .lines()
        .filter(|(_, code)| has_word(code, "unsafe {"))
        .count();
    let excess = !source.path.starts_with("torch/") && blocks > 1;
    excess
        .then(|| format!("src/{}: {blocks} unsafe blocks", source.path))
        .into_iter()
        .collect()
}

/// Each unsafe block says why it is sound.
fn unsafe_is_explained(source: &Source) -> Vec<String> {
    let text: Vec<&str> = source.text.lines().collect();
    let unexplained = |(line, code): (usize, &str)| {
        let before = &text[line.saturating_sub(12)..line];
        let explained = before.iter().any(|line| line.contains("SAFETY:"));
        (has_word(code, "unsafe {") && !explained)
            .then(|| format!("{}: no SAFETY comment", source.place(line)))
    };
    source.lines().filter_map(unexplained).collect()
}

fn bindings_are_generated_in_one_file(source: &Source) -> Vec<String> {
    only_in(source, &["bindgen!"], &|path| path == "plugin/bindings.rs")
}

/// I10. The build script talks to cargo.
fn only_output_prints(source: &Source) -> Vec<String> {
    let words = [
        "println!",
        "eprintln!",
        "print!",
        "eprint!",
        "dbg!",
        "stdout().lock",
        "stderr().lock",
        "stdout().write",
        "stderr().write",
    ];
    only_in(source, &words, &|path| {
        matches!(path, "cli/output.rs" | "torch/build.rs")
    })
}

/// I4. The two executables hand their arguments to `cli`; the build script is told where libtorch lies.
fn surroundings_are_read_in_two_places(source: &Source) -> Vec<String> {
    let words = [
        "env::var",
        "env::var_os",
        "env::vars",
        "env::vars_os",
        "env::args",
        "env::args_os",
        "env::current_dir",
    ];
    let belongs = |path: &str| {
        ["cli/", "config/"]
            .iter()
            .any(|folder| path.starts_with(folder))
            || matches!(path, "main.rs" | "engine.rs" | "torch/build.rs")
    };
    only_in(source, &words, &belongs)
}

/// No `unwrap` and `expect` on what the outside world can cause: there are none at all.
fn nothing_panics_on_purpose(source: &Source) -> Vec<String> {
    only_in(
        source,
        &[
            ".unwrap()",
            ".expect(",
            "panic!(",
            "todo!(",
            "unimplemented!(",
        ],
        &|path| path == "torch/build.rs",
    )
}

/// I5 and I6: one place runs the backward pass.
fn one_backward(source: &Source) -> Vec<String> {
    only_in(source, &["f_backward", ".backward()"], &|path| {
        path == "trainer/step.rs"
    })
}

/// I9.
fn file_names_stand_in_layout(source: &Source) -> Vec<String> {
    if source.path == "checkpoint/layout.rs" {
        return Vec::new();
    }
    let names = file_names();
    let repeated = |(line, text): &(usize, String)| {
        let name = names
            .iter()
            .find(|name| text == *name || text.ends_with(&format!("/{name}")))?;
        Some(format!(
            "{}: {name:?} has a constant in checkpoint/layout.rs",
            source.place(*line)
        ))
    };
    source.strings.iter().filter_map(repeated).collect()
}

/// The literals of `layout.rs` that are whole names.
fn file_names() -> Vec<String> {
    let text = fs::read_to_string(root().join("src/checkpoint/layout.rs")).expect("layout.rs");
    let literals = Source::new("checkpoint/layout.rs", &text)
        .strings
        .into_iter()
        .map(|(_, text)| text);
    let names: Vec<String> = literals
        .filter(|text| text.contains('.') && !text.starts_with('.') && !text.contains(['{', ' ']))
        .collect();
    assert!(names.len() > 10, "layout.rs holds only {names:?}");
    names
}

/// Style, rule 1.
fn files_say_what_they_own(source: &Source) -> Vec<String> {
    let header = source
        .text
        .lines()
        .take_while(|line| line.starts_with("//!"))
        .count();
    let empty = source
        .text
        .lines()
        .next()
        .is_none_or(|line| line.trim_start_matches("//!").trim().is_empty());
    (header == 0 || empty)
        .then(|| format!("src/{}: no `//!` header", source.path))
        .into_iter()
        .collect()
}

/// Style, rule 13.
fn files_and_functions_are_short(source: &Source) -> Vec<String> {
    let mut found = Vec::new();
    let lines = source
        .code
        .lines()
        .filter(|line| !line.trim().is_empty())
        .count();
    if lines > 600 {
        found.push(format!(
            "src/{}: {lines} lines of code without tests; limit 600",
            source.path
        ));
    }
    let text: Vec<&str> = source.text.lines().collect();
    for (line, length) in functions(source) {
        let excused = text[..line]
            .iter()
            .rev()
            .take(6)
            .any(|line| line.contains("expect(clippy::too_many_lines"));
        if length > 60 && !excused {
            found.push(format!(
                "{}: a function of {length} lines; limit 60",
                source.place(line)
            ));
        }
    }
    found
}

/// First line and number of lines of each function with a body.
fn functions(source: &Source) -> Vec<(usize, usize)> {
    let letters: Vec<char> = source.code.chars().collect();
    let mut offset = 0;
    let mut found = Vec::new();
    for (line, code) in source.lines() {
        let is_function = has_word(code, "fn")
            && code
                .trim_start()
                .starts_with(['f', 'p', 'a', 'c', 'u', 'e']);
        let body = letters[offset..]
            .iter()
            .position(|letter| matches!(letter, '{' | ';'))
            .map(|position| offset + position);
        if let Some(open) = body.filter(|open| is_function && letters[*open] == '{') {
            let end = closing(&letters, open);
            found.push((
                line,
                1 + letters[offset..end]
                    .iter()
                    .filter(|letter| **letter == '\n')
                    .count(),
            ));
        }
        offset += code.chars().count() + 1;
    }
    found
}

/// Style, "Avoid" 11.
fn names_have_content(source: &Source) -> Vec<String> {
    let empty = [
        "util", "utils", "common", "helper", "helpers", "base", "manager", "misc",
    ];
    let stem = source
        .path
        .rsplit('/')
        .next()
        .map_or("", |name| name.trim_end_matches(".rs"));
    empty
        .contains(&stem)
        .then(|| format!("src/{}: a name without content", source.path))
        .into_iter()
        .collect()
}

/// A rule and a file that breaks it, path and text.
type Rule = (
    &'static str,
    fn(&Source) -> Vec<String>,
    (&'static str, &'static str),
);

const RULES: &[Rule] = &[
    (
        "dependencies point down",
        dependencies_point_down,
        (
            "data/mod.rs",
            "use crate::{error::Failure, model::{Model, Outputs}};",
        ),
    ),
    (
        "the loop receives boxes",
        the_loop_receives_boxes,
        ("trainer/step.rs", "use crate::optim::adamw::AdamW;"),
    ),
    (
        "unsafe stays in torch",
        unsafe_stays_in_torch,
        ("data/table.rs", "fn f() { unsafe { g() } }"),
    ),
    (
        "one unsafe block outside",
        one_unsafe_block_outside,
        ("plugin/engine.rs", "unsafe { a() }\nunsafe { b() }"),
    ),
    (
        "unsafe is explained",
        unsafe_is_explained,
        ("torch/mod.rs", "fn f() {\n    unsafe { g() }\n}"),
    ),
    (
        "bindings are generated in one file",
        bindings_are_generated_in_one_file,
        ("plugin/metrics.rs", "wasmtime::component::bindgen!({})"),
    ),
    (
        "only output prints",
        only_output_prints,
        ("trainer/train.rs", "fn f() { println!(\"x\"); }"),
    ),
    (
        "surroundings are read in two places",
        surroundings_are_read_in_two_places,
        ("plugin/cache.rs", "let home = std::env::var(\"HOME\");"),
    ),
    (
        "nothing panics on purpose",
        nothing_panics_on_purpose,
        ("data/table.rs", "let x = y.unwrap();"),
    ),
    (
        "one backward",
        one_backward,
        ("trainer/train.rs", "loss.f_backward()?;"),
    ),
    (
        "file names stand in layout",
        file_names_stand_in_layout,
        (
            "model/config.rs",
            "let path = folder.join(\"config.json\");",
        ),
    ),
    (
        "files say what they own",
        files_say_what_they_own,
        ("data/table.rs", "use std::fs;\n//! Too late."),
    ),
    (
        "names have content",
        names_have_content,
        ("data/utils.rs", "//! Everything that fits nowhere else."),
    ),
];

/// Fails with one line for each violation.
fn assert_none(what: &str, violations: &[String]) {
    assert!(
        violations.is_empty(),
        "{what}:\n  {}",
        violations.join("\n  ")
    );
}

#[test]
fn rules_hold() {
    let sources = sources(&root());
    let rules = RULES.iter().map(|(name, rule, _)| (name, rule));
    let broken: Vec<String> = rules
        .flat_map(|(name, rule)| {
            sources
                .iter()
                .flat_map(rule)
                .map(move |violation| format!("{violation} ({name})"))
        })
        .collect();
    assert_none("the architecture page says otherwise", &broken);
}

#[test]
fn sizes_hold() {
    let violations: Vec<String> = sources(&root())
        .iter()
        .flat_map(files_and_functions_are_short)
        .collect();
    assert_none("too long to read", &violations);
}

#[test]
fn rules_can_fail() {
    for (name, rule, (path, text)) in RULES {
        assert!(
            !rule(&Source::new(path, text)).is_empty(),
            "{name} does not notice: {text}"
        );
    }
    assert!(
        !dependencies_point_down(&Source::new("extras/mod.rs", "")).is_empty(),
        "a module without a level passes"
    );
    let long = format!(
        "fn f() {{\n{}}}\n{}",
        "    g();\n".repeat(61),
        "// x\nstatic X: u8 = 0;\n".repeat(560)
    );
    assert_eq!(
        files_and_functions_are_short(&Source::new("data/table.rs", &long)).len(),
        2
    );
}

#[test]
fn rules_read_code_only() {
    let innocent = "\
//! A file that speaks of unsafe { } and println!() in comments.
const TEXT: &str = \"unsafe { println!() } use crate::plugin::x; \\\" config\";
const RAW: &str = r#\"dbg!() \" unsafe {\"#;
const QUOTE: char = '\"';
fn lifetime<'a>(text: &'a str) -> &'a str { text }
#[cfg(test)]
mod tests {
    fn f() { x.unwrap(); println!(\"{}\", \"config.json\"); }
}
";
    let source = Source::new("data/table.rs", innocent);
    for (name, rule, _) in RULES {
        assert_none(name, &rule(&source));
    }
}

/// C++ is the bridge's.
#[test]
fn only_torch_holds_cpp() {
    let foreign = files(&root().join("src")).into_iter().filter(|path| {
        let ending = path
            .extension()
            .and_then(|ending| ending.to_str())
            .unwrap_or("");
        !path.starts_with(root().join("src/torch")) && ending != "rs"
    });
    let foreign: Vec<String> = foreign.map(|path| path.display().to_string()).collect();
    assert_none("not Rust, and outside src/torch", &foreign);
}

/// The top level is fixed; what git ignores may lie there too.
#[test]
fn the_top_level_is_fixed() {
    let known = [
        "Cargo.toml",
        "Cargo.lock",
        "rust-toolchain.toml",
        "Makefile",
        "README.md",
        "CHANGELOG.md",
        "LICENSE",
    ];
    let folders = ["src", "wit", "plugins", "examples", "tests"];
    let ignored = fs::read_to_string(root().join(".gitignore")).expect(".gitignore");
    let strange: Vec<String> = fs::read_dir(root())
        .expect("the root")
        .map(|entry| {
            entry
                .expect("an entry")
                .file_name()
                .to_string_lossy()
                .into_owned()
        })
        .filter(|name| {
            !name.starts_with('.')
                && !known.contains(&name.as_str())
                && !folders.contains(&name.as_str())
        })
        .filter(|name| !ignored.lines().any(|line| line == format!("/{name}")))
        .collect();
    assert_none("unknown at the top level", &strange);
}

/// Words that would tell of somebody's machine or of how the text came about, in everything that is ours to write.
#[test]
fn texts_are_about_the_program() {
    let words = [["ses", "sion"], ["ag", "ent"]].map(|halves| halves.concat());
    let paths = [["/ro", "ot/"], ["/wo", "rk/"]].map(|halves| halves.concat());
    let folders = ["src", "wit", "plugins", "examples", "tests", ".ci"];
    let single =
        ["Makefile", "README.md", "CHANGELOG.md", "Cargo.toml"].map(|name| root().join(name));
    let all = folders
        .iter()
        .flat_map(|folder| files(&root().join(folder)))
        .chain(single);
    let mut found = Vec::new();
    for path in all {
        // What is not text, and the tokenizer's vocabulary, has no words of ours.
        let Ok(text) = fs::read_to_string(&path) else {
            continue;
        };
        if matches!(
            path.file_name().and_then(|name| name.to_str()),
            Some("Cargo.lock" | "tokenizer.json" | "vocab.txt")
        ) {
            continue;
        }
        for (index, line) in text.lines().enumerate() {
            let lower = line.to_lowercase();
            let word = words
                .iter()
                .find(|word| has_word(&lower, word) || has_word(&lower, &format!("{word}s")));
            let word = word.or(paths.iter().find(|part| line.contains(*part)));
            found.extend(word.map(|word| format!("{}:{}: {word}", shown(&path), index + 1)));
        }
    }
    assert_none("words that do not belong here", &found);
}

fn shown(path: &Path) -> String {
    path.strip_prefix(root())
        .unwrap_or(path)
        .display()
        .to_string()
}

/// The README's table of deliberate differences: what it must name, in order.
#[rustfmt::skip]
const DIFFERENCES: &[(&str, &str)] = &[
    ("`save_safetensors`", "always safetensors; an explicit `false` is refused"),
    ("`data_seed`", "a private generator"),
    ("`eval_delay`", "treated as 0"),
    ("ratio intervals", "round(x * 1e6)"),
    ("`greater_is_better`", "end in \"loss\""),
    ("resume: new arguments", "one line saying what changed"),
    ("resume inside later epochs", "exact"),
    ("resume of a run that a callback had stopped", "stays stopped"),
    ("`train_loss` after resume", "the steps of this call"),
    ("metrics that are not finite", "never the best"),
    ("rotation", "by step"),
    ("NaN filter", "`--on_nonfinite"),
    ("short groups", "carried over"),
    ("`evaluate()` with a dict", "works everywhere"),
    ("fp16 scaler", "checkpointed"),
    ("`auto_find_batch_size`", "restored before the next attempt"),
    ("resume from safetensors", "both load"),
    ("exhausted iterable", "clean stop"),
    ("short group flushed at epoch end", "synchronised"),
    ("environment side effects", "none"),
    ("TorchScript modules and AOT packages", "`--trust_model_code`"),
    ("`n_gpu` > 1", "refused"),
];

#[test]
fn the_readme_lists_the_differences() {
    let text = fs::read_to_string(root().join("README.md")).expect("README.md");
    let table = text
        .split("## Deliberate differences")
        .nth(1)
        .expect("a section on the differences");
    let table = table.split("\n## ").next().expect("the section");
    let rows: Vec<&str> = table
        .lines()
        .filter(|line| line.starts_with("| ") && !line.starts_with("| ---"))
        .skip(1)
        .collect();
    assert_eq!(rows.len(), DIFFERENCES.len(), "rows of the table");
    for (row, (subject, decision)) in rows.iter().zip(DIFFERENCES) {
        assert!(
            row.contains(subject) && row.contains(decision),
            "expected {subject:?} and {decision:?} in: {row}"
        );
    }
}
