//! The types that declare a setting. [`declarations`](super::declarations) has the settings
//! themselves.

use super::value_kind::ValueKind;

/// The declaration of a setting whose value is a `T`.
pub(super) struct Setting<T: 'static> {
    pub(super) about: About,
    pub(super) kind: &'static dyn ValueKind<T>,
}

/// Everything in a declaration that does not depend on the type of the value.
pub(super) struct About {
    /// The name of the flag, without `--`. It also makes the name of the variable.
    pub(super) flag: &'static str,
    pub(super) shape: Shape,
    pub(super) default: Preset,
    /// The text of `--help`, and the beginning of the meaning in docs/settings.md. Markdown,
    /// without a full stop at the end.
    pub(super) help: &'static str,
    /// The rest of the meaning in docs/settings.md.
    pub(super) notes: &'static str,
    /// The stores with which the setting has an effect.
    pub(super) stores: &'static [StoreKind],
    /// Whether there may be a password in the value, so that neither `--help` nor a mistake
    /// repeats it.
    pub(super) is_secret: bool,
}

/// The kinds of stores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StoreKind {
    Embedded,
    Redis,
    ZooKeeper,
}

/// The stores that several nodes share.
pub(super) const SHARED: &[StoreKind] = &[StoreKind::Redis, StoreKind::ZooKeeper];
/// All stores.
pub(super) const ALL_STORES: &[StoreKind] =
    &[StoreKind::Embedded, StoreKind::Redis, StoreKind::ZooKeeper];

impl StoreKind {
    /// Returns the flag that names the store; `None` for the embedded one.
    pub(super) const fn flag(self) -> Option<&'static str> {
        match self {
            Self::Embedded => None,
            Self::Redis => Some("--redis"),
            Self::ZooKeeper => Some("--zookeeper"),
        }
    }
}

/// The way in which a flag takes its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// `--flag VALUE`, once.
    One,
    /// `--flag VALUE`, repeatable; separated by commas in the variable.
    List,
    /// `--flag` or `--flag=BOOL`.
    Switch,
    /// `--flag`. There is no variable.
    Bare,
}

/// The default of a setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Preset {
    /// Unless the setting is given, there is no value.
    Unset,
    /// A value, written as it is given.
    Value(&'static str),
    /// A default that is computed at the start, in words.
    Computed(&'static str),
}

impl<T> Setting<T> {
    pub(super) const fn new(
        flag: &'static str,
        kind: &'static dyn ValueKind<T>,
        default: Preset,
        help: &'static str,
    ) -> Self {
        Self {
            about: About {
                flag,
                shape: Shape::One,
                default,
                help,
                notes: "",
                stores: ALL_STORES,
                is_secret: false,
            },
            kind,
        }
    }

    pub(super) const fn shape(mut self, shape: Shape) -> Self {
        self.about.shape = shape;
        self
    }

    pub(super) const fn notes(mut self, notes: &'static str) -> Self {
        self.about.notes = notes;
        self
    }

    pub(super) const fn only_with(mut self, stores: &'static [StoreKind]) -> Self {
        self.about.stores = stores;
        self
    }

    pub(super) const fn secret(mut self) -> Self {
        self.about.is_secret = true;
        self
    }

    /// Returns the default of a setting that has one.
    pub(super) fn default(&self) -> T {
        let Preset::Value(text) = self.about.default else {
            panic!("--{} has no default", self.about.flag)
        };
        self.kind.parse(text).expect("a default is a good value")
    }
}

impl About {
    /// Returns the name of the environment variable.
    pub(super) fn variable(&self) -> Option<String> {
        let name = self.flag.replace('-', "_").to_ascii_uppercase();
        (self.shape != Shape::Bare).then(|| format!("HOLDFAST_{name}"))
    }
}

/// A setting of any type.
pub(super) trait Declared: Sync {
    fn about(&self) -> &About;
    /// See [`ValueKind::unit`].
    fn unit(&self) -> &'static str;
    /// See [`ValueKind::range`].
    fn range(&self) -> String;
}

impl<T> Declared for Setting<T> {
    fn about(&self) -> &About {
        &self.about
    }

    fn unit(&self) -> &'static str {
        self.kind.unit()
    }

    fn range(&self) -> String {
        self.kind.range()
    }
}
