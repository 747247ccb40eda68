//! One row of the argument table, and the macro that makes the typed struct and the rows from one declaration.

use serde_json::Value;

use super::arguments::Arguments;
use super::setting::{Shape, Written};

/// Where an argument comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// One of the listed fields of `TrainingArguments`, with its number.
    Listed(u8),
    /// A further field of `TrainingArguments` 4.34, among them its deprecated aliases.
    Further,
    /// An argument of this program.
    Host,
}

/// Whether an argument does what it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It does.
    Honoured,
    /// Refused when set away from its default until this part exists.
    Deferred(&'static str),
    /// Refused when set away from its default, for this reason.
    Refused(&'static str),
}

/// One allowed value of an argument that is a choice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice {
    /// The value.
    pub name: &'static str,
    /// Whether it can be chosen.
    pub state: State,
}

/// A choice that works.
pub const fn choice(name: &'static str) -> Choice {
    Choice {
        name,
        state: State::Honoured,
    }
}

/// A choice that waits for a part of this program.
pub const fn later(name: &'static str, missing: &'static str) -> Choice {
    Choice {
        name,
        state: State::Deferred(missing),
    }
}

/// A choice that will not work.
pub const fn never(name: &'static str, reason: &'static str) -> Choice {
    Choice {
        name,
        state: State::Refused(reason),
    }
}

/// What is said about an argument besides its name, type, default and help.
#[derive(Clone, Copy, Debug)]
pub struct Facts {
    /// Where it comes from.
    pub origin: Origin,
    /// Whether it is honoured.
    pub state: State,
    /// Allowed values; empty if there is no list.
    pub choices: &'static [Choice],
    /// Further names with the same meaning.
    pub aliases: &'static [&'static str],
}

/// A listed field, honoured.
pub const fn listed(number: u8) -> Facts {
    Facts {
        origin: Origin::Listed(number),
        state: State::Honoured,
        choices: &[],
        aliases: &[],
    }
}

/// A further field of 4.34, honoured.
pub const fn further() -> Facts {
    Facts {
        origin: Origin::Further,
        ..listed(0)
    }
}

/// An argument of this program.
pub const fn host() -> Facts {
    Facts {
        origin: Origin::Host,
        ..listed(0)
    }
}

impl Facts {
    /// Refused until `missing` exists.
    pub const fn deferred(self, missing: &'static str) -> Self {
        Self {
            state: State::Deferred(missing),
            ..self
        }
    }

    /// Refused for this reason.
    pub const fn refused(self, reason: &'static str) -> Self {
        Self {
            state: State::Refused(reason),
            ..self
        }
    }

    /// The allowed values.
    pub const fn one_of(self, choices: &'static [Choice]) -> Self {
        Self { choices, ..self }
    }

    /// Further names with the same meaning.
    pub const fn also_named(self, aliases: &'static [&'static str]) -> Self {
        Self { aliases, ..self }
    }
}

/// One argument.
#[derive(Debug)]
pub struct Field {
    /// Hugging Face name.
    pub name: &'static str,
    /// Name of its type in the reference.
    pub type_name: &'static str,
    /// How many values it takes.
    pub shape: Shape,
    /// Group in help texts.
    pub section: &'static str,
    /// The rest.
    pub facts: Facts,
    pub(super) doc: &'static str,
    pub(super) read: fn(&mut Arguments, Written<'_>) -> bool,
    pub(super) show: fn(&Arguments) -> Value,
}

impl Field {
    /// What it does, in one sentence or two.
    pub fn help(&self) -> &'static str {
        self.doc.trim_start()
    }

    /// Sets the field of `arguments`; false if the value has another form.
    #[must_use]
    pub fn read(&self, arguments: &mut Arguments, written: Written<'_>) -> bool {
        (self.read)(arguments, written)
    }

    /// The field's value in `arguments`.
    pub fn show(&self, arguments: &Arguments) -> Value {
        (self.show)(arguments)
    }

    /// Whether the value must never be shown.
    pub fn is_secret(&self) -> bool {
        self.name.ends_with("_token")
    }

    /// `--no_<name>` exists for booleans that are true by default.
    pub fn has_negation(&self, defaults: &Arguments) -> bool {
        self.shape == Shape::Flag && self.show(defaults) == Value::Bool(true)
    }
}

/// Declares the arguments once: a typed struct with defaults, and the table with everything that is said about them.
macro_rules! arguments {
    ($($section:literal { $($(#[doc = $help:literal])+ $name:ident: $type:ty = $default:expr, $facts:expr;)* })*) => {
        /// All arguments, flat, exactly as they were written; absent ones have their default.
        #[derive(Clone, Debug, PartialEq)]
        pub struct Arguments {
            $($($(#[doc = $help])+ pub $name: $type,)*)*
        }

        impl Default for Arguments {
            fn default() -> Self {
                Self { $($($name: $default,)*)* }
            }
        }

        /// The table, in the order of the help text.
        pub static FIELDS: &[Field] = &[
            $($(Field {
                name: stringify!($name),
                type_name: <$type as Setting>::TYPE,
                shape: <$type as Setting>::SHAPE,
                doc: concat!($($help),+),
                section: $section,
                facts: $facts,
                read: |arguments, written| {
                    <$type as Setting>::read(written).map(|value| arguments.$name = value).is_some()
                },
                show: |arguments| arguments.$name.show(),
            },)*)*
        ];
    };
}

pub(super) use arguments;
