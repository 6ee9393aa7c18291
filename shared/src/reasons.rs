//! Reason codes: why something was decided, by one word that is stable across releases. Each program has a table of its own.

/// Makes the enum `Reason`, its codes and the list of all of them from one table of `/// doc` and `Variant = "code"`.
#[macro_export]
macro_rules! reasons {
    ($($(#[$doc:meta])+ $variant:ident = $code:literal),+ $(,)?) => {
        /// Every reason, by its code.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Reason { $($(#[$doc])+ $variant),+ }

        impl Reason {
            /// Every reason, for metrics and tables.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The code, stable across releases.
            #[must_use]
            pub const fn code(self) -> &'static str {
                match self { $(Self::$variant => $code),+ }
            }

            /// The name of the variant: the code in the spelling of the reasons of events.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => stringify!($variant)),+ }
            }
        }
    };
}
