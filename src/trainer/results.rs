//! `save_metrics` and `log_metrics` (spec 5.5): `<split>_results.json`, `all_results.json`, and the aligned table.

use std::path::Path;

use anyhow::Result;
use serde_json::{Map, Value};

use super::round;
use crate::checkpoint::save::atomic_write;
use crate::checkpoint::{json, layout};

/// Writes `<split>_results.json` and merges the metrics into `all_results.json`.
pub fn save_metrics(output_dir: &Path, split: &str, metrics: &[(String, f64)]) -> Result<()> {
    let metrics: Map<String, Value> = metrics
        .iter()
        .map(|(name, value)| (name.clone(), json_number(name, *value)))
        .collect();
    write_sorted(&output_dir.join(layout::results(split)), &metrics)?;
    let all_path = output_dir.join(layout::ALL_RESULTS);
    let mut all: Map<String, Value> = if all_path.exists() {
        json::read(&all_path)?
    } else {
        Map::new()
    };
    all.extend(metrics);
    write_sorted(&all_path, &all)
}

/// Counts are integers, as the reference's scripts write them; everything else is a float, also 3.0.
fn json_number(name: &str, value: f64) -> Value {
    if !value.is_finite() {
        Value::String(value.to_string())
    } else if is_count(name, value) {
        Value::from(value as i64)
    } else {
        Value::from(value)
    }
}

fn is_count(name: &str, value: f64) -> bool {
    let is_integer = name.ends_with("_samples") || name.contains("_mem_");
    is_integer && value.fract() == 0.0
}

fn write_sorted(path: &Path, metrics: &Map<String, Value>) -> Result<()> {
    let mut names: Vec<_> = metrics.keys().collect();
    names.sort();
    let sorted: Map<String, Value> = names
        .into_iter()
        .map(|name| (name.clone(), metrics[name].clone()))
        .collect();
    let mut text = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    let mut serializer = serde_json::Serializer::with_formatter(&mut text, formatter);
    serde::Serialize::serialize(&sorted, &mut serializer)?;
    text.push(b'\n');
    atomic_write(path, &text)
}

/// The table of `log_metrics`.
pub fn table(split: &str, metrics: &[(String, f64)]) -> String {
    let mut rows: Vec<(&str, String)> = metrics
        .iter()
        .map(|(name, value)| (name.as_str(), display(name, *value)))
        .collect();
    rows.sort();
    let width = |column: &mut dyn Iterator<Item = usize>| column.max().unwrap_or(0);
    let name_width = width(&mut rows.iter().map(|(name, _)| name.len()));
    let value_width = width(&mut rows.iter().map(|(_, value)| value.len()));
    let mut text = format!("***** {split} metrics *****\n");
    for (name, value) in rows {
        text.push_str(&format!("  {name:<name_width$} = {value:>value_width$}\n"));
    }
    text
}

fn display(name: &str, value: f64) -> String {
    if name.contains("_mem_") {
        format!("{}MB", (value as i64) >> 20)
    } else if name.contains("_runtime") {
        duration(value)
    } else if name == "total_flos" {
        format!("{}GF", (value as i64) >> 30)
    } else if is_count(name, value) {
        format!("{value}")
    } else {
        let rounded = round(value, 4);
        if rounded.fract() == 0.0 {
            format!("{rounded:.1}")
        } else {
            rounded.to_string()
        }
    }
}

/// Seconds as `H:MM:SS.cc`.
fn duration(seconds: f64) -> String {
    let whole = seconds as u64;
    let hundredths = ((seconds - whole as f64).abs() * 100.0) as u64;
    format!(
        "{}:{:02}:{:02}.{hundredths:02}",
        whole / 3600,
        whole / 60 % 60,
        whole % 60
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn row_93_of_the_specification() {
        // Row 93.
        let cases = [
            ("train_runtime", 3725.987, "1:02:05.98"),
            ("init_mem_cpu_alloc_delta", f64::from(5 << 20), "5MB"),
            ("total_flos", (3_u64 << 30) as f64, "3GF"),
            ("eval_loss", 0.123_456, "0.1235"),
            ("epoch", 3.0, "3.0"),
        ];
        for (name, value, expected) in cases {
            assert_eq!(display(name, value), expected, "{name}");
        }
    }

    #[test]
    fn the_table_is_sorted_and_aligned() {
        let metrics = [("eval_loss".to_owned(), 0.5), ("epoch".to_owned(), 1.0)];
        assert_eq!(
            table("eval", &metrics),
            "***** eval metrics *****\n  epoch     = 1.0\n  eval_loss = 0.5\n"
        );
    }

    #[test]
    fn splits_are_merged_sorted_and_counts_are_whole() {
        let folder = tempfile::tempdir().expect("a folder");
        let write = |split: &str, metrics: &[(&str, f64)]| {
            let metrics: Vec<_> = metrics
                .iter()
                .map(|(name, value)| ((*name).to_owned(), *value))
                .collect();
            save_metrics(folder.path(), split, &metrics).expect("written");
        };
        let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).expect("a file");
        write("train", &[("train_samples", 64.0), ("epoch", 3.0)]);
        write("eval", &[("eval_loss", f64::NAN), ("epoch", 2.0)]);
        assert_eq!(
            read("train_results.json"),
            "{\n    \"epoch\": 3.0,\n    \"train_samples\": 64\n}\n"
        );
        assert_eq!(
            read("all_results.json"),
            "{\n    \"epoch\": 2.0,\n    \"eval_loss\": \"NaN\",\n    \"train_samples\": 64\n}\n"
        );
        // As Python's json module writes it.
        std::fs::write(folder.path().join("all_results.json"), "{\"eval_f1\": NaN}")
            .expect("a file");
        write("predict", &[("predict_samples", 2.0)]);
        assert_eq!(
            read("all_results.json"),
            "{\n    \"eval_f1\": null,\n    \"predict_samples\": 2\n}\n"
        );
    }
}
