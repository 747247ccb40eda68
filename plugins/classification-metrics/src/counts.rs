//! The counts of a pass and what follows from them. Follows scikit-learn's `precision_recall_fscore_support` with
//! `zero_division=0`: a class counts if it occurs among the labels or the predictions, in a multi-label task always.

use trainer_sdk::{Error, Result};

use crate::Average;

/// One class.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Class {
    correct: u64,
    predicted: u64,
    support: u64,
}

/// Correct rows and all rows.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Rows {
    pub correct: u64,
    pub all: u64,
}

/// What a pass has seen.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Counts {
    classes: Vec<Class>,
    rows: Rows,
    multi_label: bool,
}

impl Counts {
    /// Adds three rows of counts per class: correct, predicted, true. Returns their sums.
    pub fn add_classes(&mut self, counts: &[i64], classes: usize, multi_label: bool) -> Rows {
        self.multi_label |= multi_label;
        if self.classes.len() < classes {
            self.classes.resize(classes, Class::default());
        }
        let mut rows = Rows::default();
        for (index, class) in self.classes.iter_mut().take(classes).enumerate() {
            let [correct, predicted, support] =
                [0, 1, 2].map(|row| counts[row * classes + index] as u64);
            class.correct += correct;
            class.predicted += predicted;
            class.support += support;
            rows.correct += correct;
            rows.all += support;
        }
        rows
    }

    /// Adds correct rows and all rows.
    pub fn add_rows(&mut self, correct: u64, all: u64) {
        self.rows.correct += correct;
        self.rows.all += all;
    }

    /// Adds what another process has counted.
    pub fn add(&mut self, other: &Counts) {
        if self.classes.len() < other.classes.len() {
            self.classes.resize(other.classes.len(), Class::default());
        }
        for (class, more) in self.classes.iter_mut().zip(&other.classes) {
            class.correct += more.correct;
            class.predicted += more.predicted;
            class.support += more.support;
        }
        self.add_rows(other.rows.correct, other.rows.all);
        self.multi_label |= other.multi_label;
    }

    /// Share of correct rows; not a number without rows.
    pub fn accuracy(&self) -> f64 {
        self.rows.correct as f64 / self.rows.all as f64
    }

    /// Precision, recall and F1.
    pub fn averaged(&self, average: Average, positive: usize) -> Result<[f64; 3]> {
        let occurs = |class: &&Class| self.multi_label || class.predicted + class.support > 0;
        match average {
            Average::Binary => self.positive(positive).map(Class::scores),
            Average::Micro => Ok(self
                .classes
                .iter()
                .fold(Class::default(), Class::plus)
                .scores()),
            Average::Macro => Ok(mean(
                self.classes
                    .iter()
                    .filter(occurs)
                    .map(|class| (class.scores(), 1.0)),
            )),
            Average::Weighted => Ok(mean(
                self.classes
                    .iter()
                    .map(|class| (class.scores(), class.support as f64)),
            )),
        }
    }

    fn positive(&self, positive: usize) -> Result<Class> {
        let occurring = self
            .classes
            .iter()
            .enumerate()
            .filter(|(_, class)| class.predicted + class.support > 0);
        if self.multi_label || occurring.filter(|(index, _)| *index > 1).count() > 0 {
            return Err(Error::config(
                "average `binary` needs two classes; use `macro`, `micro` or `weighted`",
            ));
        }
        Ok(self.classes.get(positive).copied().unwrap_or_default())
    }

    /// For another process.
    pub fn to_bytes(&self) -> Vec<u8> {
        let header = [
            u64::from(self.multi_label),
            self.rows.correct,
            self.rows.all,
        ];
        let classes = self
            .classes
            .iter()
            .flat_map(|class| [class.correct, class.predicted, class.support]);
        header
            .into_iter()
            .chain(classes)
            .flat_map(u64::to_le_bytes)
            .collect()
    }

    /// From another process.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let (numbers, rest) = bytes.as_chunks::<8>();
        let numbers: Vec<u64> = numbers
            .iter()
            .map(|number| u64::from_le_bytes(*number))
            .collect();
        let (header, classes) = numbers
            .split_at_checked(3)
            .ok_or_else(|| Error::data("counts are not complete"))?;
        let (classes, odd) = classes.as_chunks::<3>();
        if !rest.is_empty() || !odd.is_empty() {
            return Err(Error::data("counts are not complete"));
        }
        let class = |[correct, predicted, support]: &[u64; 3]| Class {
            correct: *correct,
            predicted: *predicted,
            support: *support,
        };
        let rows = Rows {
            correct: header[1],
            all: header[2],
        };
        Ok(Self {
            classes: classes.iter().map(class).collect(),
            rows,
            multi_label: header[0] != 0,
        })
    }
}

impl Class {
    fn scores(self) -> [f64; 3] {
        let ratio = |part: u64, whole: u64| {
            if whole == 0 {
                0.0
            } else {
                part as f64 / whole as f64
            }
        };
        [
            ratio(self.correct, self.predicted),
            ratio(self.correct, self.support),
            ratio(2 * self.correct, self.predicted + self.support),
        ]
    }

    fn plus(self, other: &Self) -> Self {
        Self {
            correct: self.correct + other.correct,
            predicted: self.predicted + other.predicted,
            support: self.support + other.support,
        }
    }
}

fn mean(weighted: impl Iterator<Item = ([f64; 3], f64)>) -> [f64; 3] {
    let mut sums = [0.0; 3];
    let mut total = 0.0;
    for (scores, weight) in weighted {
        total += weight;
        for (sum, score) in sums.iter_mut().zip(scores) {
            *sum += score * weight;
        }
    }
    if total == 0.0 {
        [0.0; 3]
    } else {
        sums.map(|sum| sum / total)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(left: [f64; 3], right: [f64; 3]) {
        for (left, right) in left.iter().zip(right) {
            assert!((left - right).abs() < 1e-12, "{left} {right}");
        }
    }

    /// y_true = [0, 1, 2, 0, 1, 2], y_pred = [0, 2, 1, 0, 0, 1] (scikit-learn's own example), class 3 never occurs.
    fn example() -> Counts {
        let mut counts = Counts::default();
        let rows = counts.add_classes(&[2, 0, 0, 0, 3, 2, 1, 0, 2, 2, 2, 0], 4, false);
        counts.add_rows(rows.correct, rows.all);
        counts
    }

    #[test]
    fn averages_are_those_of_scikit_learn() {
        let counts = example();
        close(
            counts.averaged(Average::Macro, 1).expect("numbers"),
            [2.0 / 9.0, 1.0 / 3.0, 4.0 / 15.0],
        );
        close(
            counts.averaged(Average::Micro, 1).expect("numbers"),
            [1.0 / 3.0; 3],
        );
        close(
            counts.averaged(Average::Weighted, 1).expect("numbers"),
            [2.0 / 9.0, 1.0 / 3.0, 4.0 / 15.0],
        );
        assert!((counts.accuracy() - 1.0 / 3.0).abs() < 1e-12);
        assert!(counts.averaged(Average::Binary, 1).is_err());
    }

    #[test]
    fn parts_of_a_pass_add_up() {
        let mut whole = example();
        whole.add(&example());
        let mut merged = Counts::from_bytes(&example().to_bytes()).expect("counts");
        merged.add(&Counts::from_bytes(&example().to_bytes()).expect("counts"));
        assert_eq!(whole, merged);
        assert!(Counts::from_bytes(&[0; 7]).is_err());
        assert!(Counts::from_bytes(&[0; 32]).is_err());
    }
}
