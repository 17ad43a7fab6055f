//! Holds the promises against the log of a run. Pure: the tests at its end plant what must be found.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use super::PAGES_PER_KEY;
use super::record::{Answer, Entry, Fault, Harm, Outcome, Page, Record, Time};

/// How long all may take to be right again once nothing is wrong any more: far above what it takes.
pub(super) const CALM: Duration = Duration::from_secs(10);
/// Around a split, versions of both masters may be met; and behind a loss, those of a node that knew no better.
const AROUND: Duration = Duration::from_secs(3);
/// From when there is a Redis again until a node has put again what it had confirmed.
const PUT_AGAIN: Duration = Duration::from_secs(1);

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Verdict {
    /// Broken promises, in words.
    pub(super) broken: Vec<String>,
    /// Confirmed statuses that were never seen, as the node and the Redis that knew them both died: within a second of
    /// each other, or not.
    pub(super) died_together: u64,
    pub(super) died_apart: u64,
    /// Versions that were given twice or are behind: around a split, or as Redis forgot them and its clock was set back.
    pub(super) of_two_masters: u64,
    pub(super) of_two_clocks: u64,
    pub(super) gets: u64,
    pub(super) statuses: u64,
    pub(super) refused_gets: u64,
    pub(super) broken_gets: u64,
    pub(super) sets: u64,
    pub(super) confirmed: u64,
    pub(super) refused: u64,
    pub(super) unknown: u64,
}

/// A get of the log.
#[derive(Debug, Clone, Copy)]
struct Get {
    page: Page,
    last: u64,
    asked: Time,
    answered: Option<(Time, Answer)>,
}

/// A set of the log.
#[derive(Debug, Clone, Copy)]
struct Set {
    number: u64,
    key: usize,
    node: usize,
    sent: Time,
    told: Option<(Time, Outcome)>,
}

/// The log, sorted.
struct Judge<'a> {
    gets: BTreeMap<u64, Get>,
    sets: BTreeMap<u64, Set>,
    faults: Vec<&'a Fault>,
    end: Time,
    verdict: Verdict,
}

/// Judges a log.
pub(super) fn judge(entries: &[Entry]) -> Verdict {
    let mut judge = Judge {
        gets: BTreeMap::new(),
        sets: BTreeMap::new(),
        faults: Vec::new(),
        end: entries.last().map_or(Time::ZERO, |entry| entry.at),
        verdict: Verdict::default(),
    };
    for entry in entries {
        judge.read(entry);
    }
    judge.check_gets();
    judge.check_values();
    judge.check_versions();
    judge.check_lost();
    judge.verdict
}

impl Judge<'_> {
    fn broken(&mut self, what: String) {
        self.verdict.broken.push(what);
    }
}

impl<'a> Judge<'a> {
    fn read(&mut self, Entry { at, record }: &'a Entry) {
        match record {
            &Record::Asked { get, page, last } => {
                self.gets.insert(get, Get { page, last, asked: *at, answered: None });
            }
            &Record::Answered { get, answer } => match self.gets.get_mut(&get) {
                Some(asked) if asked.answered.is_none() => asked.answered = Some((*at, answer)),
                Some(asked) => {
                    let what = format!("get {get} was answered twice: {:?}, then {answer:?}", asked.answered);
                    self.broken(what);
                }
                None => self.broken(format!("an answer to get {get}, which nobody asked: {answer:?}")),
            },
            &Record::Sent { set, key, node } => {
                self.sets.insert(set, Set { number: set, key, node, sent: *at, told: None });
            }
            &Record::Told { set, outcome } => {
                let sent = self.sets.get_mut(&set).expect("sent before");
                match sent.told.replace((*at, outcome)) {
                    None => {}
                    Some(before) => self.broken(format!("set {set} was told {before:?}, then {outcome:?}")),
                }
            }
            Record::Fault(fault) => self.faults.push(fault),
        }
    }

    /// One answer a get, and none backwards.
    fn check_gets(&mut self) {
        for (number, get) in self.gets.clone() {
            self.verdict.gets += 1;
            match get.answered.map(|(_, answer)| answer) {
                None => self.broken(format!("get {number} has no end: {get:?}")),
                Some(Answer::Broken) => self.verdict.broken_gets += 1,
                Some(Answer::Nothing(-1)) => {}
                Some(Answer::Nothing(-2 | -3 | -6)) => self.verdict.refused_gets += 1,
                Some(Answer::Nothing(code)) => self.broken(format!("get {number} was told {code}")),
                Some(Answer::Status { version, .. }) => {
                    self.verdict.statuses += 1;
                    if version <= get.last {
                        self.broken(format!("get {number} was told {version}, which is backwards: {get:?}"));
                    }
                }
            }
        }
    }

    /// What is seen was set, was not refused, and has the version that was confirmed.
    fn check_values(&mut self) {
        let mut values: HashMap<(usize, u64), u64> = HashMap::new();
        for (number, get) in self.gets.clone() {
            let Some((at, Answer::Status { version, set })) = get.answered else { continue };
            let key = get.page.key;
            match self.sets.get(&set).filter(|sent| sent.key == key).map(|sent| sent.told) {
                None => self.broken(format!("get {number} was told of set {set}, which nobody sent for key {key}")),
                Some(Some((_, Outcome::Refused))) => {
                    self.broken(format!("get {number} was told of set {set}, which was refused"));
                }
                Some(Some((told, Outcome::Confirmed(confirmed)))) if confirmed != version => {
                    let what = format!("set {set} was confirmed as {confirmed}, and seen as {version}");
                    self.mixed(what, &[at, told]);
                }
                Some(_) => {}
            }
            let first = *values.entry((key, version)).or_insert(set);
            if first != set {
                self.mixed(format!("version {version} of key {key} is of set {first} and of set {set}"), &[at]);
            }
        }
    }

    /// A version is above all that were confirmed before its set was sent, and given once.
    fn check_versions(&mut self) {
        let mut by_key: HashMap<usize, Vec<(Time, Time, u64, u64)>> = HashMap::new();
        for set in self.sets.values().copied().collect::<Vec<_>>() {
            self.verdict.sets += 1;
            match set.told {
                None => self.broken(format!("set {} has no end", set.number)),
                Some((_, Outcome::Refused)) => self.verdict.refused += 1,
                Some((_, Outcome::Unknown)) => self.verdict.unknown += 1,
                Some((told, Outcome::Confirmed(version))) => {
                    self.verdict.confirmed += 1;
                    by_key.entry(set.key).or_default().push((told, set.sent, version, set.number));
                }
            }
        }
        for mut confirmed in by_key.into_values() {
            confirmed.sort_unstable();
            let mut newest_told: Vec<(Time, u64)> = Vec::new();
            for &(told, sent, version, number) in &confirmed {
                let before = newest_told.partition_point(|(at, _)| *at < sent);
                let newest = newest_told[..before].last().map_or(0, |(_, newest)| *newest);
                if version <= newest {
                    let node = self.sets[&number].node;
                    self.mixed(format!("set {number} by node {node} has {version}, behind {newest}"), &[sent, told]);
                }
                let newest = newest_told.last().map_or(version, |(_, newest)| version.max(*newest));
                newest_told.push((told, newest));
            }
        }
    }

    /// What is confirmed is seen by each page of its key in time, and by every get that begins later.
    fn check_lost(&mut self) {
        let mut seen: HashMap<Page, Vec<(Time, u64)>> = HashMap::new();
        let mut by_key: HashMap<usize, Vec<Get>> = HashMap::new();
        for get in self.gets.values() {
            if let Some((at, Answer::Status { version, .. })) = get.answered {
                seen.entry(get.page).or_default().push((at, version));
            }
            by_key.entry(get.page.key).or_default().push(*get);
        }
        for set in self.sets.values().copied().collect::<Vec<_>>() {
            let Some((told, Outcome::Confirmed(version))) = set.told else { continue };
            let deadline = self.deadline(told);
            let mut missing = Vec::new();
            for which in 0..PAGES_PER_KEY {
                let page = Page { key: set.key, which };
                let first = seen.get(&page).and_then(|seen| seen.iter().find(|(_, seen)| *seen >= version));
                match first {
                    Some((at, _)) if *at <= deadline => {}
                    Some((at, _)) => missing.push(format!("page {which} saw it only at {at:?}, not by {deadline:?}")),
                    None => missing.push(format!("page {which} never saw it")),
                }
            }
            for get in by_key.get(&set.key).into_iter().flatten() {
                let is_newer = |answer| matches!(answer, Answer::Status { version: told, .. } if told >= version);
                let Some((_, answer)) = get.answered else { continue };
                if get.asked > deadline && get.last < version && answer != Answer::Broken && !is_newer(answer) {
                    missing.push(format!("a get at {:?} was told {answer:?}", get.asked));
                }
            }
            if missing.is_empty() {
                continue;
            }
            match self.died(set.node, told) {
                Some(true) => self.verdict.died_together += 1,
                Some(false) => self.verdict.died_apart += 1,
                None => self.broken(format!(
                    "lost: {version} by {set:?}: {missing:?}; meanwhile {:?}",
                    self.meanwhile(told, deadline)
                )),
            }
        }
    }

    /// When what was confirmed at `told` must have been seen: at the end of the first calm after it.
    fn deadline(&self, told: Time) -> Time {
        let mut calm = told;
        loop {
            let over = self.faults.iter().filter(|fault| fault.from <= calm + CALM && fault.to > calm);
            match over.map(|fault| fault.to).max() {
                Some(to) => calm = to,
                None => return (calm + CALM).min(self.end),
            }
        }
    }

    /// What was wrong between these.
    fn meanwhile(&self, from: Time, to: Time) -> Vec<&'a str> {
        let meanwhile = self.faults.iter().filter(|fault| fault.from <= to && fault.to >= from);
        meanwhile.map(|fault| fault.what.as_str()).collect()
    }

    /// Whether all died that knew of what this node confirmed at `told`: within a second of each other, or apart.
    fn died(&self, node: usize, told: Time) -> Option<bool> {
        let mut died = None;
        for forgot in &self.faults {
            let Harm::RedisForgot(since) = forgot.harm else { continue };
            if told < since || told > forgot.to {
                continue;
            }
            for end in self.faults.iter().filter(|fault| fault.harm == Harm::NodeDied(node)) {
                if told <= end.to && end.from <= forgot.to + PUT_AGAIN {
                    let apart = end.from.abs_diff(forgot.from);
                    died = Some(died.unwrap_or(false) || apart <= Duration::from_secs(1));
                }
            }
        }
        died
    }

    /// Versions that are not in order. The promise is of one master; and of one that remembers, or whose clock is not
    /// set back: a version is above what is stored, what a page that waits has seen, and the time as the node knows it.
    fn mixed(&mut self, what: String, at: &[Time]) {
        let near = |from: Time, to: Time| at.iter().any(|at| (from..=to).contains(at));
        let is_split = |fault: &&Fault| fault.splits && near(fault.from.saturating_sub(AROUND), fault.to + AROUND);
        if self.faults.iter().any(is_split) {
            self.verdict.of_two_masters += 1;
        } else if at.iter().any(|at| self.is_of_two_clocks(*at)) {
            self.verdict.of_two_clocks += 1;
        } else {
            let (from, to) = at.iter().fold((Time::MAX, Time::ZERO), |(from, to), at| (from.min(*at), to.max(*at)));
            let meanwhile = self.meanwhile(from.saturating_sub(AROUND), to);
            self.broken(format!("{what}, at {at:?}; shortly before and meanwhile {meanwhile:?}"));
        }
    }

    /// Whether Redis forgot versions which its clock, being set back, had not reached again at this time. Nodes remember for
    /// good how far it was ahead; one that began later, or was cut off meanwhile, does not, and is the first to set.
    fn is_of_two_clocks(&self, at: Time) -> bool {
        let forgot = |fault: &&Fault| matches!(fault.harm, Harm::RedisForgot(_)) && fault.from <= at;
        self.faults.iter().filter(|clock| clock.from <= at).any(|clock| {
            let Harm::RedisClock { off, ahead } = clock.harm else { return false };
            let is_over = |it: &Fault| {
                let caught_up = clock.to + off + PUT_AGAIN;
                at > if ahead { caught_up.max(it.to + AROUND) } else { caught_up }
            };
            self.faults.iter().filter(|fault| forgot(fault)).any(|it| it.to >= clock.from && !is_over(it))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A log of lines, a tenth of a second apart.
    fn found(records: &[Record]) -> Verdict {
        let at = |line: u64| Duration::from_millis(100 * line);
        let entries = records.iter().zip(1..).map(|(record, line)| Entry { at: at(line), record: record.clone() });
        judge(&entries.collect::<Vec<_>>())
    }

    fn asked(get: u64, which: usize, last: u64) -> Record {
        Record::Asked { get, page: Page { key: 0, which }, last }
    }

    fn answered(get: u64, version: u64, set: u64) -> Record {
        Record::Answered { get, answer: Answer::Status { version, set } }
    }

    fn nothing(get: u64) -> Record {
        Record::Answered { get, answer: Answer::Nothing(-1) }
    }

    fn sent(set: u64) -> Record {
        Record::Sent { set, key: 0, node: 1 }
    }

    fn told(set: u64, outcome: Outcome) -> Record {
        Record::Told { set, outcome }
    }

    fn fault(from: u64, to: u64, harm: Harm, splits: bool) -> Record {
        let at = |ms| Duration::from_millis(ms);
        Record::Fault(Fault { what: "a fault".to_owned(), from: at(from), to: at(to), harm, splits })
    }

    /// Both pages wait, and hear of a set.
    fn good() -> Vec<Record> {
        let confirmed = told(100, Outcome::Confirmed(7));
        vec![asked(1, 0, 0), asked(2, 1, 0), sent(100), answered(1, 7, 100), confirmed, answered(2, 7, 100)]
    }

    /// The one promise that is said to be broken.
    fn only(verdict: &Verdict) -> &str {
        assert_eq!(verdict.broken.len(), 1, "{verdict:?}");
        &verdict.broken[0]
    }

    #[test]
    fn a_good_run_breaks_nothing_and_is_counted() {
        let verdict = found(&good());
        assert!(verdict.broken.is_empty(), "{verdict:?}");
        assert_eq!((verdict.gets, verdict.statuses, verdict.sets, verdict.confirmed), (2, 2, 1, 1));
    }

    #[test]
    fn a_planted_loss_is_found() {
        let mut log = good();
        log[5] = nothing(2);
        assert!(only(&found(&log)).contains("page 1 never saw it"));
    }

    #[test]
    fn a_status_that_a_page_hears_of_only_long_after_the_fault_is_found() {
        // A get begins before the calm ends, and one after it, which is in vain.
        let mut log = good();
        log.insert(5, fault(100, 300, Harm::None, false));
        log.extend((0..200).map(|_| sent(200)));
        log.push(told(200, Outcome::Unknown));
        assert!(found(&log).broken.is_empty());
        log.extend([asked(3, 5, 6), nothing(3)]);
        assert!(only(&found(&log)).contains("a get at"));
        let late = log.remove(6);
        log.push(late);
        assert!(found(&log).broken.iter().any(|what| what.contains("saw it only at")));
    }

    #[test]
    fn a_planted_step_backwards_is_found() {
        let log = [&good()[..], &[asked(3, 0, 7), answered(3, 7, 100)]].concat();
        assert!(only(&found(&log)).contains("backwards"));
    }

    #[test]
    fn a_planted_second_answer_and_one_that_nobody_asked_for_are_found() {
        let log = [&good()[..], &[answered(2, 7, 100)]].concat();
        assert!(only(&found(&log)).contains("answered twice"));
        let log = [&good()[..], &[answered(3, 7, 100)]].concat();
        assert!(only(&found(&log)).contains("nobody asked"));
        let log = [&good()[..], &[asked(3, 0, 7)]].concat();
        assert!(only(&found(&log)).contains("no end"));
    }

    #[test]
    fn a_planted_status_that_was_refused_or_never_set_is_found() {
        let log =
            [&good()[..], &[sent(101), told(101, Outcome::Refused), asked(3, 0, 7), answered(3, 8, 101)]].concat();
        assert!(only(&found(&log)).contains("refused"));
        let log = [&good()[..], &[asked(3, 0, 7), answered(3, 8, 102)]].concat();
        assert!(only(&found(&log)).contains("nobody sent"));
    }

    #[test]
    fn planted_versions_out_of_order_are_found_but_around_two_masters() {
        let behind = [sent(101), told(101, Outcome::Confirmed(6))];
        let log = [&good()[..], &behind].concat();
        assert!(only(&found(&log)).contains("behind 7"));
        let log = [&good()[..], &behind, &[fault(100, 300, Harm::None, true)]].concat();
        let verdict = found(&log);
        assert!(verdict.broken.is_empty() && verdict.of_two_masters == 1, "{verdict:?}");
        let clock = fault(100, 300, Harm::RedisClock { off: Duration::from_secs(5), ahead: true }, false);
        only(&found(&[&good()[..], &behind, std::slice::from_ref(&clock)].concat()));
        let forgot = fault(400, 500, Harm::RedisForgot(Time::ZERO), false);
        let verdict = found(&[&good()[..], &behind, &[clock, forgot.clone()]].concat());
        assert!(verdict.broken.is_empty() && verdict.of_two_clocks == 1, "{verdict:?}");
        let over = fault(100, 110, Harm::RedisClock { off: Duration::from_millis(10), ahead: true }, false);
        let later: Vec<_> = (50..70).flat_map(|get| [asked(get, 5, 9), nothing(get)]).collect();
        assert!(only(&found(&[&good()[..], &later, &behind, &[over, forgot]].concat())).contains("behind 7"));
        let log =
            [&good()[..], &[sent(101), told(101, Outcome::Unknown), asked(3, 4, 0), answered(3, 7, 101)]].concat();
        assert!(only(&found(&log)).contains("of set 100 and of set 101"));
        let log = [&good()[..], &[asked(3, 4, 0), answered(3, 8, 100)]].concat();
        assert!(only(&found(&log)).contains("confirmed as 7, and seen as 8"));
    }

    #[test]
    fn a_loss_is_counted_where_its_node_and_its_redis_died() {
        let mut log = good();
        log[5] = nothing(2);
        let lost = |faults: &[Record]| found(&[&log[..], faults].concat());
        let (forgot, died) = (fault(520, 900, Harm::RedisForgot(Time::ZERO), false), |node, from| {
            fault(from, from + 10, Harm::NodeDied(node), false)
        });
        assert_eq!(lost(&[forgot.clone(), died(1, 600)]).died_together, 1);
        assert_eq!(lost(&[forgot.clone(), died(1, 1800)]).died_apart, 1);
        // Another node, before it confirmed, after it put it again; or Redis had been asked to store it before.
        only(&lost(&[forgot.clone(), died(0, 600)]));
        only(&lost(&[forgot.clone(), died(1, 100)]));
        only(&lost(&[forgot.clone(), died(1, 2000)]));
        only(&lost(&[fault(520, 900, Harm::RedisForgot(Duration::from_millis(510)), false), died(1, 600)]));
        only(&lost(&[forgot]));
        only(&lost(&[died(1, 600)]));
    }
}
