//! Creation and registration of metrics: each family is registered once, with all of its
//! series.

use std::marker::PhantomData;
use std::ops::Index;

use prometheus::core::{Atomic, Collector, GenericCounter, GenericGauge};
use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry,
};

use super::labels::Label;

pub(crate) const GOOD: &str = "names and labels are written in this module, each once";

/// One metric for each value of a label. All are made at the start, so that none is missing
/// before its first event, and none has to be looked up.
#[derive(Debug)]
pub(crate) struct By<L, M> {
    each: Box<[M]>,
    label: PhantomData<fn(L)>,
}

impl<L: Label, M> By<L, M> {
    fn new(each: impl Fn(L) -> M) -> Self {
        Self {
            each: L::ALL.iter().map(|label| each(*label)).collect(),
            label: PhantomData,
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &M> {
        self.each.iter()
    }
}

impl<L: Label, M> Index<L> for By<L, M> {
    type Output = M;

    fn index(&self, label: L) -> &M {
        &self.each[label.index()]
    }
}

/// A registry that makes families, each with its name and its help.
#[derive(Debug, Default)]
pub(crate) struct Families(Registry);

impl Families {
    pub(crate) fn counter<P: Atomic + 'static>(&self, name: &str, help: &str) -> GenericCounter<P> {
        self.add(GenericCounter::new(name, help).expect(GOOD))
    }

    pub(crate) fn counters<L: Label>(
        &self,
        name: &str,
        help: &str,
        label: &str,
    ) -> By<L, IntCounter> {
        let family = self.add(IntCounterVec::new(Opts::new(name, help), &[label]).expect(GOOD));
        By::new(|value: L| family.with_label_values(&[value.as_str()]))
    }

    /// Makes counters by two labels.
    pub(crate) fn counters_by<K: Label, L: Label>(
        &self,
        name: &str,
        help: &str,
        labels: [&str; 2],
    ) -> By<K, By<L, IntCounter>> {
        let family = self.add(IntCounterVec::new(Opts::new(name, help), &labels).expect(GOOD));
        By::new(|one: K| {
            By::new(|other: L| family.with_label_values(&[one.as_str(), other.as_str()]))
        })
    }

    pub(crate) fn gauge<P: Atomic + 'static>(&self, name: &str, help: &str) -> GenericGauge<P> {
        self.add(GenericGauge::new(name, help).expect(GOOD))
    }

    pub(crate) fn gauges<L: Label>(&self, name: &str, help: &str, label: &str) -> By<L, IntGauge> {
        let family = self.add(IntGaugeVec::new(Opts::new(name, help), &[label]).expect(GOOD));
        By::new(|value: L| family.with_label_values(&[value.as_str()]))
    }

    /// Makes gauges by a label whose values are known only while the node runs.
    pub(crate) fn gauges_by_text(&self, name: &str, help: &str, label: &str) -> IntGaugeVec {
        self.add(IntGaugeVec::new(Opts::new(name, help), &[label]).expect(GOOD))
    }

    pub(crate) fn histogram(&self, name: &str, help: &str, buckets: &[f64]) -> Histogram {
        let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
        self.add(Histogram::with_opts(options).expect(GOOD))
    }

    pub(crate) fn histograms<L: Label>(
        &self,
        name: &str,
        help: &str,
        label: &str,
        buckets: &[f64],
    ) -> By<L, Histogram> {
        let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
        let family = self.add(HistogramVec::new(options, &[label]).expect(GOOD));
        By::new(|value: L| family.with_label_values(&[value.as_str()]))
    }

    /// Makes a gauge that is always 1 and has its information in a label, whose value is known
    /// only at the start.
    pub(crate) fn info(&self, name: &str, help: &str, label: &str, value: &str) {
        self.add(IntGauge::with_opts(Opts::new(name, help).const_label(label, value)).expect(GOOD))
            .set(1);
    }

    pub(crate) fn registry(&self) -> &Registry {
        &self.0
    }

    fn add<C: Collector + Clone + 'static>(&self, family: C) -> C {
        self.0.register(Box::new(family.clone())).expect(GOOD);
        family
    }
}
