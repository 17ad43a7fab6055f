//! Tests of what operators do and see: settings, drains, health, logs, metrics, deployed files.

mod activation;
pub(crate) mod certificates;
pub(crate) mod deploy;
pub(crate) mod drain;
pub(crate) mod health;
pub(crate) mod logs;
pub(crate) mod metrics;
pub(crate) mod monitoring;
mod reload;
mod restarts;
mod service;
pub(crate) mod settings;
