//! What a list of texts has more and less than another: requests, grants, hooks, imports.

/// Texts that came and texts that went.
pub(super) struct Difference {
    pub added: Vec<String>,
    pub removed: Vec<String>,
}

impl Difference {
    pub(super) fn between(before: &[String], after: &[String]) -> Self {
        let without = |own: &[String], other: &[String]| -> Vec<String> {
            own.iter()
                .filter(|text| !other.contains(text))
                .cloned()
                .collect()
        };
        Self {
            added: without(after, before),
            removed: without(before, after),
        }
    }

    /// All of them, each with its sign.
    pub(super) fn signed(&self) -> impl Iterator<Item = (char, &String)> {
        let added = self.added.iter().map(|text| ('+', text));
        added.chain(self.removed.iter().map(|text| ('-', text)))
    }
}
