//! What of each message is honoured, harmless, declared but not run yet, or refused: one table a message, which the
//! conversion itself is made from.
//!
//! [`open!`] takes a message apart without `..`: a field that a new version of the definitions brings does not compile
//! until somebody has said what becomes of it. [`variants!`] does the same for a `oneof`.

use std::collections::HashMap;

/// What becomes of a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// weft does what it says, or refuses those of its values that it cannot do.
    Honoured,
    /// weft would do nothing else without it: why.
    Harmless(&'static str),
    /// It is read, and has no effect yet: what does not happen. What it guards is closed.
    NotRun(&'static str),
    /// A resource in which it is set is refused, with its path.
    Refused,
}

/// A field, or a member of a `oneof`, and what becomes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field {
    /// Its name in the definition of the message; of a member of a `oneof`, in the definition's camel case.
    pub name: &'static str,
    /// What becomes of it.
    pub standing: Standing,
}

/// A message, or a `oneof` of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Message {
    /// Its full name, such as `envoy.config.cluster.v3.Cluster`.
    pub name: &'static str,
    /// All its fields.
    pub fields: &'static [Field],
}

/// A message, or a `oneof`, of which it is said what becomes of every field.
pub(crate) trait Told {
    /// What becomes of it.
    const MESSAGE: Message;
}

/// Whether a field is set.
pub(crate) trait IsTold {
    /// Whether it is there, and not what it is by default.
    fn is_told(&self) -> bool;
}

impl<T> IsTold for Option<T> {
    fn is_told(&self) -> bool {
        self.is_some()
    }
}

impl<T> IsTold for Vec<T> {
    fn is_told(&self) -> bool {
        !self.is_empty()
    }
}

impl<K, V> IsTold for HashMap<K, V> {
    fn is_told(&self) -> bool {
        !self.is_empty()
    }
}

impl IsTold for String {
    fn is_told(&self) -> bool {
        !self.is_empty()
    }
}

impl IsTold for bool {
    fn is_told(&self) -> bool {
        *self
    }
}

impl IsTold for i32 {
    fn is_told(&self) -> bool {
        *self != 0
    }
}

impl IsTold for u32 {
    fn is_told(&self) -> bool {
        *self != 0
    }
}

/// The table of a message: what becomes of each field, by lists of the honoured, harmless, not run and refused ones.
macro_rules! table {
    ($message:path as $name:literal
        [$($honoured:ident)*] [$($harmless:ident $why:literal)*] [$($not_run:ident $what:literal)*] [$($refused:ident)*]
    ) => {
        #[allow(non_local_definitions, reason = "the table stands where the message is taken apart")]
        impl $crate::convert::table::Told for $message {
            const MESSAGE: $crate::convert::table::Message = $crate::convert::table::Message {
                name: $name,
                fields: &[
                    $($crate::convert::table::field(
                        stringify!($honoured), $crate::convert::table::Standing::Honoured,
                    ),)*
                    $($crate::convert::table::field(
                        stringify!($harmless), $crate::convert::table::Standing::Harmless($why),
                    ),)*
                    $($crate::convert::table::field(
                        stringify!($not_run), $crate::convert::table::Standing::NotRun($what),
                    ),)*
                    $($crate::convert::table::field(
                        stringify!($refused), $crate::convert::table::Standing::Refused,
                    ),)*
                ],
            };
        }
    };
}

/// Takes a message apart: binds the honoured fields by their names, notes those that are harmless or not run yet where
/// they are set, and returns from the function with the path of the first that is refused.
macro_rules! open {
    ($told:expr, $at:expr, $message:path as $name:literal {
        $(honoured: $($honoured:ident),+ $(,)?;)?
        $(harmless: $($harmless:ident = $why:literal),+ $(,)?;)?
        $(not_run: $($not_run:ident = $what:literal),+ $(,)?;)?
        $(refused: $($refused:ident),+ $(,)?;)?
    }) => {
        $crate::convert::table::table!($message as $name
            [$($($honoured)+)?] [$($($harmless $why)+)?] [$($($not_run $what)+)?] [$($($refused)+)?]
        );
        let $message {
            $($($honoured,)+)?
            $($($harmless,)+)?
            $($($not_run,)+)?
            $($($refused,)+)?
        } = $told;
        $($(if $crate::convert::table::IsTold::is_told(&$harmless) {
            $at.harmless(($name, stringify!($harmless)));
        })+)?
        $($(if $crate::convert::table::IsTold::is_told(&$not_run) {
            let leaves = $crate::convert::leaves::leaves(&$not_run);
            $at.not_run(($name, stringify!($not_run)), $what, leaves);
        })+)?
        $($(if $crate::convert::table::IsTold::is_told(&$refused) {
            return Err($at.field(stringify!($refused)).not_honoured());
        })+)?
        let _ = &$at;
    };
}

/// Says of every member of a `oneof` what becomes of it, and refuses those that are not honoured.
macro_rules! variants {
    ($oneof:path as $name:literal {
        honoured: $($honoured:ident),+ $(,)?;
        $(harmless: $($harmless:ident = $why:literal),+ $(,)?;)?
        $(not_run: $($not_run:ident = $what:literal),+ $(,)?;)?
        $(refused: $($refused:ident),+ $(,)?;)?
    }) => {
        $crate::convert::table::table!($oneof as $name
            [$($honoured)+] [$($($harmless $why)+)?] [$($($not_run $what)+)?] [$($($refused)+)?]
        );
        impl $crate::convert::table::Choice for $oneof {
            fn choose(self, at: &$crate::convert::at::At<'_>) -> Result<Self, $crate::convert::Refused> {
                // An alias, so that its members can be named.
                type Oneof = $oneof;
                let _ = at;
                match &self {
                    $(Oneof::$honoured { .. })|+ => Ok(self),
                    $($(Oneof::$harmless { .. } => {
                        at.harmless(($name, stringify!($harmless)));
                        Ok(self)
                    })+)?
                    $($(Oneof::$not_run { .. } => {
                        let leaves = $crate::convert::leaves::leaves(&self);
                        at.not_run(($name, stringify!($not_run)), $what, leaves);
                        Ok(self)
                    })+)?
                    $($(Oneof::$refused { .. } => Err(at.field(stringify!($refused)).not_honoured()),)+)?
                }
            }
        }
    };
}

/// A `oneof`, or an enumeration, of which some members are refused.
pub(crate) trait Choice: Sized {
    /// Itself, when its member is not refused.
    ///
    /// # Errors
    ///
    /// The member, when it is.
    fn choose(self, at: &super::at::At<'_>) -> Result<Self, super::Refused>;
}

/// A field by the name that Rust has for it.
pub(crate) const fn field(name: &'static str, standing: Standing) -> Field {
    // `match` is a word of the language.
    let name = match name.as_bytes() {
        [b'r', b'#', ..] => name.split_at(2).1,
        _ => name,
    };
    Field { name, standing }
}

pub(crate) use {open, table, variants};
