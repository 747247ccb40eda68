//! `callbacks`: the built-in ones by name, as this program or as the reference calls them.

use super::super::findings::did_you_mean;
use super::super::run::Callbacks;
use super::super::setting::quoted;
use super::Draft;

const DEFAULT_FLOW: &str = "default_flow";
const EARLY_STOPPING: &str = "early_stopping";
const PROGRESS: &str = "progress";
/// The same as progress: `disable_tqdm` decides between a bar and lines.
const PRINTER: &str = "printer";

/// Names that mean each callback.
const NAMES: &[(&str, &str)] = &[
    (DEFAULT_FLOW, "DefaultFlowCallback"),
    (EARLY_STOPPING, "EarlyStoppingCallback"),
    (PROGRESS, "ProgressCallback"),
    (PRINTER, "PrinterCallback"),
];

impl Draft<'_> {
    /// The reference's names become ours; what is asked for fits the other arguments.
    pub(super) fn complete_callbacks(&mut self) {
        let Some(given) = self.arguments.callbacks.clone() else {
            return;
        };
        let mut names = Vec::new();
        for word in &given {
            match NAMES
                .iter()
                .find(|(own, theirs)| word == own || word == theirs)
            {
                Some((own, _)) => names.push((*own).to_owned()),
                None => self.unknown_callback(word),
            }
        }
        if names.iter().any(|name| name == EARLY_STOPPING) {
            // The reference's default.
            self.arguments.early_stopping_patience.get_or_insert(1);
        } else if self.is_given("early_stopping_patience")
            && self.arguments.early_stopping_patience.is_some()
        {
            let text = "lacks early_stopping, but early_stopping_patience is set; add it, or leave early_stopping_patience out";
            self.contradict(&["callbacks", "early_stopping_patience"], text);
        }
        self.arguments.callbacks = Some(names);
    }

    fn unknown_callback(&mut self, word: &str) {
        let known = NAMES.iter().map(|(own, _)| *own);
        let text = format!(
            "{} is not a built-in callback{}; use some of {}, or a plugin",
            quoted(word),
            did_you_mean(word, known.clone()),
            known.collect::<Vec<_>>().join(", ")
        );
        self.wrong("callbacks", text);
    }

    pub(super) fn builtin_callbacks(&self) -> Callbacks {
        let has = |wanted: &[&str]| match &self.arguments.callbacks {
            Some(names) => names.iter().any(|name| wanted.contains(&name.as_str())),
            None => true,
        };
        Callbacks {
            default_flow: has(&[DEFAULT_FLOW]),
            progress: has(&[PROGRESS, PRINTER]),
        }
    }
}
