//! Loss and metric curves as one SVG in the output folder, drawn from the records of the run.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, anyhow};
use plotters::prelude::*;
use serde_json::Value;

use super::{Reporter, Start};
use crate::checkpoint::layout;
use crate::checkpoint::save::atomic_write;

/// Points per name, in step order.
type Series = BTreeMap<String, Vec<(f64, f64)>>;

const WIDTH: u32 = 960;
const PANEL_HEIGHT: u32 = 360;

/// Collects records; draws at the end.
#[derive(Debug, Default)]
pub struct Curves {
    losses: Series,
    metrics: Series,
    rates: Series,
}

impl Curves {
    fn add(&mut self, step: f64, name: &str, value: f64) {
        const UNPLOTTED: [&str; 6] = [
            "epoch",
            "step",
            "total_flos",
            "train_loss",
            "train_runtime",
            "runtime",
        ];
        let is_speed = name.ends_with("_runtime") || name.ends_with("_per_second");
        if !value.is_finite() || is_speed || UNPLOTTED.contains(&name) {
            return;
        }
        let panel = match name {
            "learning_rate" => &mut self.rates,
            _ if name.ends_with("loss") => &mut self.losses,
            _ => &mut self.metrics,
        };
        panel
            .entry(name.to_owned())
            .or_default()
            .push((step, value));
    }

    /// The drawing; `None` without any point.
    pub fn svg(&self) -> Result<Option<String>> {
        let panels = [
            ("loss", &self.losses),
            ("metrics", &self.metrics),
            ("learning rate", &self.rates),
        ];
        let panels: Vec<_> = panels
            .into_iter()
            .filter(|(_, series)| !series.is_empty())
            .collect();
        if panels.is_empty() {
            return Ok(None);
        }
        let mut text = String::new();
        {
            let height = PANEL_HEIGHT * u32::try_from(panels.len())?;
            let root = SVGBackend::with_string(&mut text, (WIDTH, height)).into_drawing_area();
            root.fill(&WHITE).map_err(|error| anyhow!("{error}"))?;
            for (area, (title, series)) in root.split_evenly((panels.len(), 1)).iter().zip(&panels)
            {
                draw_panel(area, title, series)
                    .with_context(|| format!("drawing the {title} curves"))?;
            }
            root.present().map_err(|error| anyhow!("{error}"))?;
        }
        Ok(Some(text))
    }
}

type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;

fn draw_panel(area: &Area<'_>, title: &str, series: &Series) -> Result<()> {
    let points = || series.values().flatten();
    let span = |values: &mut dyn Iterator<Item = f64>| {
        let (low, high) = values.fold((f64::MAX, f64::MIN), |(low, high), value| {
            (low.min(value), high.max(value))
        });
        let margin = if high > low {
            (high - low) * 0.05
        } else {
            high.abs().max(1.0) * 0.05
        };
        (low - margin, high + margin)
    };
    let (left, right) = span(&mut points().map(|point| point.0));
    let (bottom, top) = span(&mut points().map(|point| point.1));
    let failed = |error: DrawingAreaErrorKind<std::io::Error>| anyhow!("{error}");
    let mut chart = ChartBuilder::on(area)
        .caption(title, ("sans-serif", 18))
        .margin(12)
        .x_label_area_size(32)
        .y_label_area_size(64)
        .build_cartesian_2d(left..right, bottom..top)
        .map_err(failed)?;
    chart
        .configure_mesh()
        .x_desc("step")
        .light_line_style(WHITE)
        .draw()
        .map_err(failed)?;
    for (index, (name, points)) in series.iter().enumerate() {
        let color = Palette99::pick(index).to_rgba();
        chart
            .draw_series(LineSeries::new(
                points.iter().copied(),
                color.stroke_width(2),
            ))
            .map_err(failed)?
            .label(name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], color.stroke_width(2)));
    }
    let legend = chart
        .configure_series_labels()
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK.mix(0.2))
        .draw();
    legend.map_err(failed)
}

impl Reporter for Curves {
    fn name(&self) -> &str {
        "curves"
    }

    fn start(&mut self, start: &Start<'_>) -> Result<()> {
        *self = Self::default();
        for entry in start.history {
            let step = entry.get("step").and_then(Value::as_f64).unwrap_or(0.0);
            for (name, value) in entry {
                if let Some(value) = value.as_f64() {
                    self.add(step, name, value);
                }
            }
        }
        Ok(())
    }

    fn scalars(&mut self, step: u64, values: &[(String, f64)]) -> Result<()> {
        for (name, value) in values {
            self.add(step as f64, name, *value);
        }
        Ok(())
    }

    fn finish(&mut self, _status: &str, output_dir: &Path) -> Result<()> {
        match self.svg()? {
            Some(text) => atomic_write(&output_dir.join(layout::CURVES), text.as_bytes()),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_named_value_becomes_a_line_of_its_panel() {
        let mut curves = Curves::default();
        assert_eq!(curves.svg().expect("a drawing"), None);
        for step in 1..=3 {
            let values = [
                ("loss".to_owned(), 1.0 / step as f64),
                ("epoch".to_owned(), 0.1),
            ];
            curves.scalars(step, &values).expect("records");
        }
        curves
            .scalars(
                3,
                &[
                    ("eval_accuracy".to_owned(), 0.9),
                    ("eval_loss".to_owned(), f64::NAN),
                ],
            )
            .expect("records");
        let svg = curves.svg().expect("a drawing").expect("points");
        assert!(
            svg.starts_with("<svg") && svg.contains("eval_accuracy"),
            "{svg}"
        );
        assert!(svg.matches("<polyline").count() >= 2);
        assert!(!svg.contains("eval_loss") && !svg.contains(">epoch<"));
    }
}
