//! Checks the promises against the log of a run. The judge is pure. The tests at its end plant
//! the mistakes that it must find.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use super::PAGES_PER_KEY;
use super::record::{Answer, Entry, Fault, Harm, Outcome, Page, Record, Time};

/// The time that everything may take to be right again once nothing is wrong any more. It is far
/// above the time that this takes.
pub(super) const CALM: Duration = Duration::from_secs(10);
/// The time around a split in which versions of both masters may be met. For as long after a
/// loss, versions of a node that knew no better may be met.
const AROUND: Duration = Duration::from_secs(3);
/// The time from when there is a Redis again until a node has restored the statuses that it had
/// confirmed.
const PUT_AGAIN: Duration = Duration::from_secs(1);

/// The time within which a process has the clock that it is told to have.
const TURN: Duration = Duration::from_millis(1500);
/// Events that are no further apart than this happen at once.
const AT_ONCE: Duration = Duration::from_secs(1);

/// The findings about a run.
#[derive(Debug, Default)]
pub(super) struct Verdict {
    /// The broken promises, in words.
    pub(super) broken: Vec<String>,
    /// The number of confirmed statuses that were never seen because the node and the Redis that
    /// knew them died at once.
    pub(super) died_together: u64,
    /// The number of versions that were given twice or are behind: around a split, or because
    /// Redis forgot them and its clock was set back.
    pub(super) of_two_masters: u64,
    pub(super) of_two_clocks: u64,
    /// The number of older sets that were seen while the statuses that a Redis had forgotten
    /// were being restored.
    pub(super) of_recovery: u64,
    pub(super) gets: u64,
    pub(super) statuses: u64,
    pub(super) refused_gets: u64,
    pub(super) broken_gets: u64,
    pub(super) sets: u64,
    pub(super) confirmed: u64,
    pub(super) refused: u64,
    pub(super) full: u64,
    pub(super) conflicts: u64,
    pub(super) unknown: u64,
    pub(super) silent: u64,
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

/// The sorted log.
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
    judge.check_order();
    judge.check_refusals();
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
                self.gets.insert(
                    get,
                    Get {
                        page,
                        last,
                        asked: *at,
                        answered: None,
                    },
                );
            }
            &Record::Answered { get, answer } => match self.gets.get_mut(&get) {
                Some(asked) if asked.answered.is_none() => asked.answered = Some((*at, answer)),
                Some(asked) => {
                    let what = format!(
                        "get {get} was answered twice: {:?}, then {answer:?}",
                        asked.answered
                    );
                    self.broken(what);
                }
                None => self.broken(format!(
                    "an answer to get {get}, which nobody asked: {answer:?}"
                )),
            },
            &Record::Sent { set, key, node } => {
                self.sets.insert(
                    set,
                    Set {
                        number: set,
                        key,
                        node,
                        sent: *at,
                        told: None,
                    },
                );
            }
            &Record::Told { set, outcome } => {
                let sent = self.sets.get_mut(&set).expect("sent before");
                match sent.told.replace((*at, outcome)) {
                    None => {}
                    Some(before) => {
                        self.broken(format!("set {set} was told {before:?}, then {outcome:?}"))
                    }
                }
            }
            Record::Fault(fault) => self.faults.push(fault),
        }
    }

    /// Checks that each get has one answer, and that none goes backwards.
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
                        self.broken(format!(
                            "get {number} was told {version}, which is backwards: {get:?}"
                        ));
                    }
                }
            }
        }
    }

    /// Checks that each status that was seen was set, was not refused, and has the version that
    /// was confirmed.
    fn check_values(&mut self) {
        let mut values: HashMap<(usize, u64), u64> = HashMap::new();
        for (number, get) in self.gets.clone() {
            let Some((at, Answer::Status { version, set })) = get.answered else {
                continue;
            };
            let key = get.page.key;
            match self
                .sets
                .get(&set)
                .filter(|sent| sent.key == key)
                .map(|sent| sent.told)
            {
                None => self.broken(format!(
                    "get {number} was told of set {set}, which nobody sent for key {key}"
                )),
                Some(Some((
                    _,
                    outcome @ (Outcome::Refused | Outcome::Full | Outcome::Conflict(_)),
                ))) => {
                    self.broken(format!(
                        "get {number} was told of set {set}, which was refused: {outcome:?}"
                    ));
                }
                Some(Some((told, Outcome::Confirmed(confirmed)))) if confirmed != version => {
                    let what =
                        format!("set {set} was confirmed as {confirmed}, and seen as {version}");
                    self.mixed(what, &[at, told]);
                }
                Some(_) => {}
            }
            let first = *values.entry((key, version)).or_insert(set);
            if first != set {
                self.mixed(
                    format!("version {version} of key {key} is of set {first} and of set {set}"),
                    &[at],
                );
            }
        }
    }

    /// Checks that each version is above all versions that were confirmed before its set was
    /// sent, and is given once.
    fn check_versions(&mut self) {
        let mut by_key: HashMap<usize, Vec<(Time, Time, u64, u64)>> = HashMap::new();
        for set in self.sets.values().copied().collect::<Vec<_>>() {
            self.verdict.sets += 1;
            match set.told {
                None => self.broken(format!("set {} has no end", set.number)),
                Some((_, Outcome::Refused)) => self.verdict.refused += 1,
                Some((_, Outcome::Full)) => self.verdict.full += 1,
                Some((_, Outcome::Conflict(_))) => self.verdict.conflicts += 1,
                Some((_, Outcome::Unknown)) => self.verdict.unknown += 1,
                Some((_, Outcome::Silence)) => self.verdict.silent += 1,
                Some((told, Outcome::Confirmed(version))) => {
                    self.verdict.confirmed += 1;
                    by_key
                        .entry(set.key)
                        .or_default()
                        .push((told, set.sent, version, set.number));
                }
            }
        }
        for mut confirmed in by_key.into_values() {
            confirmed.sort_unstable();
            let mut newest_told: Vec<(Time, u64)> = Vec::new();
            for &(told, sent, version, number) in &confirmed {
                let before = newest_told.partition_point(|(at, _)| *at < sent);
                let newest = newest_told[..before]
                    .last()
                    .map_or(0, |(_, newest)| *newest);
                if version <= newest {
                    let node = self.sets[&number].node;
                    self.mixed(
                        format!("set {number} by node {node} has {version}, behind {newest}"),
                        &[sent, told],
                    );
                }
                let newest = newest_told
                    .last()
                    .map_or(version, |(_, newest)| version.max(*newest));
                newest_told.push((told, newest));
            }
        }
    }

    /// Checks the order in which pages see sets. A set that was answered is over, and the one
    /// backend of a key numbers its sets in the order in which it sends them. So no page is told
    /// an older set than it was told before. Nor is it told a set that was sent before another
    /// one, if that other one was confirmed before the page asked.
    fn check_order(&mut self) {
        let mut by_page: HashMap<Page, Vec<(Time, u64, Get)>> = HashMap::new();
        for (number, get) in &self.gets {
            if let Some((at, Answer::Status { .. })) = get.answered {
                by_page
                    .entry(get.page)
                    .or_default()
                    .push((at, *number, *get));
            }
        }
        for (page, mut told) in by_page {
            told.sort_unstable_by_key(|(at, ..)| *at);
            let mut newest_told: Option<(u64, Time)> = None;
            for (at, number, get) in told {
                let Some((_, Answer::Status { set, .. })) = get.answered else {
                    continue;
                };
                // Only answers that came before this get was asked count, because pages of a
                // crowd ask side by side.
                let before = newest_told.filter(|(_, seen)| *seen < get.asked);
                if let Some((newer, seen)) = before.filter(|(newer, _)| *newer > set) {
                    let what = format!(
                        "page {page:?} was told set {newer}, and by get {number} set {set}, an older one"
                    );
                    self.late(what, set, newer, seen, get.asked, at);
                }
                if newest_told.is_none_or(|(newest, _)| set > newest) {
                    newest_told = Some((set, at));
                }
                let confirmed = self
                    .sets
                    .values()
                    .filter(|other| other.key == page.key && other.number > set);
                let over = confirmed.filter_map(|other| match other.told {
                    Some((told, Outcome::Confirmed(_))) if told < get.asked => {
                        Some((other.number, told))
                    }
                    _ => None,
                });
                if let Some((newer, confirmed)) = over.max() {
                    let what = format!(
                        "get {number} was told set {set} after set {newer} had been confirmed"
                    );
                    self.late(what, set, newer, confirmed, get.asked, at);
                }
            }
        }
    }

    /// Checks that a Redis that refuses writes is not reported as gone. While nothing else is
    /// wrong, sets are told that it is full if it is full, and the outcome of none is unknown. A
    /// get is told the status that there is.
    fn check_refusals(&mut self) {
        for set in self.sets.values().copied().collect::<Vec<_>>() {
            let Some((told, outcome @ (Outcome::Refused | Outcome::Unknown))) = set.told else {
                continue;
            };
            match self.only_refused(set.sent, told) {
                Some(is_full) if is_full || outcome == Outcome::Unknown => {
                    self.broken(format!(
                        "a Redis that refuses writes, full: {is_full}, was said to be gone: {set:?}"
                    ));
                }
                _ => {}
            }
        }
        for (number, get) in self.gets.clone() {
            let Some((at, Answer::Nothing(-6))) = get.answered else {
                continue;
            };
            let is_newer = |set: &Set| match set.told {
                Some((told, Outcome::Confirmed(version))) => told < get.asked && version > get.last,
                _ => false,
            };
            let is_there = self
                .sets
                .values()
                .any(|set| set.key == get.page.key && is_newer(set));
            if is_there && self.only_refused(get.asked, at).is_some() {
                self.broken(format!(
                    "get {number} was told nothing of what a Redis has that refuses writes: {get:?}"
                ));
            }
        }
    }

    /// Returns whether Redis was full, if it refused writes all this time, and nothing else was
    /// wrong then or shortly before.
    fn only_refused(&self, from: Time, to: Time) -> Option<bool> {
        let mut why = None;
        for fault in self
            .faults
            .iter()
            .filter(|fault| fault.from <= to && fault.to + AROUND >= from)
        {
            let Harm::Refused { is_full } = fault.harm else {
                return None;
            };
            if fault.from <= from && to <= fault.to {
                why = Some(is_full);
            }
        }
        why
    }

    /// Judges an older set that was seen though a newer one had been seen or confirmed at
    /// `known`. There are two excuses. The statuses that a Redis has forgotten are restored only
    /// within some time. And a set whose outcome nobody knows may take effect later if that
    /// Redis's clock goes back.
    fn late(
        &mut self,
        what: String,
        older: u64,
        newer: u64,
        known: Time,
        asked: Time,
        answered: Time,
    ) {
        let Some(&Set { sent, told, .. }) = self.sets.get(&older) else {
            return;
        };
        let is_open = !matches!(told, Some((_, Outcome::Confirmed(_))));
        let is_kept = self
            .sets
            .get(&newer)
            .is_none_or(|set| !self.died(set.node, known));
        let forgot = |fault: &Fault| {
            let recovers =
                fault.from <= asked && asked <= fault.to + PUT_AGAIN + AROUND && known <= fault.to;
            let meets_open = is_open && fault.from <= answered && fault.to >= sent;
            matches!(fault.harm, Harm::RedisForgot(_)) && (recovers || meets_open)
        };
        // A clock that was ahead goes back when it is right again. A clock that gets behind goes
        // back at once, and the time that backends give in `before` is far off for as long as it
        // is behind.
        let turns_back = |fault: &Fault| {
            let Harm::RedisClock { ahead, .. } = fault.harm else {
                return false;
            };
            let from = if ahead { fault.to } else { fault.from };
            is_open && from <= answered && fault.to + TURN >= sent
        };
        if !is_kept {
            self.verdict.died_together += 1;
        } else if self.faults.iter().any(|fault| forgot(fault)) {
            self.verdict.of_recovery += 1;
        } else if self.faults.iter().any(|fault| turns_back(fault)) {
            self.verdict.of_two_clocks += 1;
        } else {
            self.mixed(
                format!("{what}; the older: {told:?}"),
                &[sent, asked, answered],
            );
        }
    }

    /// Checks that each confirmed status is seen by each page of its key in time, and by every
    /// get that begins later.
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
            let Some((told, Outcome::Confirmed(version))) = set.told else {
                continue;
            };
            let deadline = self.deadline(told);
            let mut missing = Vec::new();
            for which in 0..PAGES_PER_KEY {
                let page = Page {
                    key: set.key,
                    which,
                };
                let first = seen
                    .get(&page)
                    .and_then(|seen| seen.iter().find(|(_, seen)| *seen >= version));
                match first {
                    Some((at, _)) if *at <= deadline => {}
                    Some((at, _)) => missing.push(format!(
                        "page {which} saw it only at {at:?}, not by {deadline:?}"
                    )),
                    None => missing.push(format!("page {which} never saw it")),
                }
            }
            for get in by_key.get(&set.key).into_iter().flatten() {
                let is_newer = |answer| matches!(answer, Answer::Status { version: told, .. } if told >= version);
                let Some((_, answer)) = get.answered else {
                    continue;
                };
                if get.asked > deadline
                    && get.last < version
                    && answer != Answer::Broken
                    && !is_newer(answer)
                {
                    missing.push(format!("a get at {:?} was told {answer:?}", get.asked));
                }
            }
            if missing.is_empty() {
                continue;
            }
            if self.died(set.node, told) {
                self.verdict.died_together += 1;
            } else {
                let meanwhile = self.meanwhile(told, deadline);
                self.broken(format!(
                    "lost: {version} by {set:?}: {missing:?}; meanwhile {meanwhile:?}"
                ));
            }
        }
    }

    /// Returns the time by which a status that was confirmed at `told` must have been seen: the
    /// end of the first calm after it.
    fn deadline(&self, told: Time) -> Time {
        let mut calm = told;
        loop {
            let over = self
                .faults
                .iter()
                .filter(|fault| fault.from <= calm + CALM && fault.to > calm);
            match over.map(|fault| fault.to).max() {
                Some(to) => calm = to,
                None => return (calm + CALM).min(self.end),
            }
        }
    }

    /// Returns the faults between two times.
    fn meanwhile(&self, from: Time, to: Time) -> Vec<&'a str> {
        let meanwhile = self
            .faults
            .iter()
            .filter(|fault| fault.from <= to && fault.to >= from);
        meanwhile.map(|fault| fault.what.as_str()).collect()
    }

    /// Returns whether all that knew the status that this node confirmed at `told` died at once.
    /// The node must have died less than a second before Redis forgot it, or later but before
    /// the node could restore it.
    fn died(&self, node: usize, told: Time) -> bool {
        let forgot = self.faults.iter().filter_map(|fault| match fault.harm {
            Harm::RedisForgot(since) if since <= told && told <= fault.to => {
                Some((fault.from, fault.to))
            }
            _ => None,
        });
        let ends: Vec<_> = self
            .faults
            .iter()
            .filter(|fault| fault.harm == Harm::NodeDied(node))
            .collect();
        forgot.into_iter().any(|(from, to)| {
            let at_once = from.saturating_sub(AT_ONCE)..=to + PUT_AGAIN;
            ends.iter()
                .any(|end| told <= end.to && at_once.contains(&end.from))
        })
    }

    /// Judges versions that are not in order. The promise holds for one master that remembers,
    /// or whose clock is not set back. It says that a version is above the stored one, the one
    /// that a waiting page has seen, and the time as the node knows it.
    fn mixed(&mut self, what: String, at: &[Time]) {
        let near = |from: Time, to: Time| at.iter().any(|at| (from..=to).contains(at));
        let is_split = |fault: &&Fault| {
            fault.splits && near(fault.from.saturating_sub(AROUND), fault.to + AROUND)
        };
        if self.faults.iter().any(is_split) {
            self.verdict.of_two_masters += 1;
        } else if at.iter().any(|at| self.is_of_two_clocks(*at)) {
            self.verdict.of_two_clocks += 1;
        } else {
            let (from, to) = at.iter().fold((Time::MAX, Time::ZERO), |(from, to), at| {
                (from.min(*at), to.max(*at))
            });
            let meanwhile = self.meanwhile(from.saturating_sub(AROUND), to);
            self.broken(format!(
                "{what}, at {at:?}; shortly before and meanwhile {meanwhile:?}"
            ));
        }
    }

    /// Returns whether Redis forgot versions that its clock, which was set back, had not reached
    /// again at this time. Nodes remember for good how far the clock was ahead. A node that
    /// began later, or was cut off meanwhile, does not, and is the first to set.
    fn is_of_two_clocks(&self, at: Time) -> bool {
        let forgot =
            |fault: &&Fault| matches!(fault.harm, Harm::RedisForgot(_)) && fault.from <= at;
        self.faults
            .iter()
            .filter(|clock| clock.from <= at)
            .any(|clock| {
                let Harm::RedisClock { off, ahead } = clock.harm else {
                    return false;
                };
                let is_over = |it: &Fault| {
                    let caught_up = clock.to + off + PUT_AGAIN;
                    at > if ahead {
                        caught_up.max(it.to + AROUND)
                    } else {
                        caught_up
                    }
                };
                self.faults
                    .iter()
                    .filter(|fault| forgot(fault))
                    .any(|it| it.to >= clock.from && !is_over(it))
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Judges a log whose lines are a tenth of a second apart.
    fn found(records: &[Record]) -> Verdict {
        let at = |line: u64| Duration::from_millis(100 * line);
        let entries = records.iter().zip(1..).map(|(record, line)| Entry {
            at: at(line),
            record: record.clone(),
        });
        judge(&entries.collect::<Vec<_>>())
    }

    fn asked(get: u64, which: usize, last: u64) -> Record {
        Record::Asked {
            get,
            page: Page { key: 0, which },
            last,
        }
    }

    fn answered(get: u64, version: u64, set: u64) -> Record {
        Record::Answered {
            get,
            answer: Answer::Status { version, set },
        }
    }

    fn nothing(get: u64) -> Record {
        Record::Answered {
            get,
            answer: Answer::Nothing(-1),
        }
    }

    fn sent(set: u64) -> Record {
        Record::Sent {
            set,
            key: 0,
            node: 1,
        }
    }

    fn told(set: u64, outcome: Outcome) -> Record {
        Record::Told { set, outcome }
    }

    fn fault(from: u64, to: u64, harm: Harm, splits: bool) -> Record {
        let at = |ms| Duration::from_millis(ms);
        Record::Fault(Fault {
            what: "a fault".to_owned(),
            from: at(from),
            to: at(to),
            harm,
            splits,
        })
    }

    /// Returns a log in which both pages wait, and hear of a set.
    fn good() -> Vec<Record> {
        let confirmed = told(100, Outcome::Confirmed(7));
        vec![
            asked(1, 0, 0),
            asked(2, 1, 0),
            sent(100),
            answered(1, 7, 100),
            confirmed,
            answered(2, 7, 100),
        ]
    }

    /// Returns the one promise that is said to be broken.
    fn only(verdict: &Verdict) -> &str {
        assert_eq!(verdict.broken.len(), 1, "{verdict:?}");
        &verdict.broken[0]
    }

    #[test]
    fn a_good_run_breaks_nothing_and_is_counted() {
        let verdict = found(&good());
        assert!(verdict.broken.is_empty(), "{verdict:?}");
        assert_eq!(
            (
                verdict.gets,
                verdict.statuses,
                verdict.sets,
                verdict.confirmed
            ),
            (2, 2, 1, 1)
        );
    }

    #[test]
    fn a_planted_loss_is_found() {
        let mut log = good();
        log[5] = nothing(2);
        assert!(only(&found(&log)).contains("page 1 never saw it"));
    }

    #[test]
    fn a_status_that_a_page_hears_of_only_long_after_the_fault_is_found() {
        // A get that begins after the calm and hears nothing is found. So is an answer that
        // comes only after the calm.
        let mut log = good();
        log.insert(5, fault(100, 300, Harm::None, false));
        log.extend((0..200).map(|_| sent(200)));
        log.push(told(200, Outcome::Unknown));
        assert!(found(&log).broken.is_empty());
        log.extend([asked(3, 5, 6), nothing(3)]);
        assert!(only(&found(&log)).contains("a get at"));
        let late = log.remove(6);
        log.push(late);
        assert!(
            found(&log)
                .broken
                .iter()
                .any(|what| what.contains("saw it only at"))
        );
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
        let log = [
            &good()[..],
            &[
                sent(101),
                told(101, Outcome::Refused),
                asked(3, 0, 7),
                answered(3, 8, 101),
            ],
        ]
        .concat();
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
        assert!(
            verdict.broken.is_empty() && verdict.of_two_masters == 1,
            "{verdict:?}"
        );
        let clock = fault(
            100,
            300,
            Harm::RedisClock {
                off: Duration::from_secs(5),
                ahead: true,
            },
            false,
        );
        only(&found(
            &[&good()[..], &behind, std::slice::from_ref(&clock)].concat(),
        ));
        let forgot = fault(400, 500, Harm::RedisForgot(Time::ZERO), false);
        let verdict = found(&[&good()[..], &behind, &[clock, forgot.clone()]].concat());
        assert!(
            verdict.broken.is_empty() && verdict.of_two_clocks == 1,
            "{verdict:?}"
        );
        let over = fault(
            100,
            110,
            Harm::RedisClock {
                off: Duration::from_millis(10),
                ahead: true,
            },
            false,
        );
        let later: Vec<_> = (50..70)
            .flat_map(|get| [asked(get, 5, 9), nothing(get)])
            .collect();
        assert!(
            only(&found(
                &[&good()[..], &later, &behind, &[over, forgot]].concat()
            ))
            .contains("behind 7")
        );
        let log = [
            &good()[..],
            &[
                sent(101),
                told(101, Outcome::Unknown),
                asked(3, 4, 0),
                answered(3, 7, 101),
            ],
        ]
        .concat();
        assert!(only(&found(&log)).contains("of set 100 and of set 101"));
        let log = [&good()[..], &[asked(3, 4, 0), answered(3, 8, 100)]].concat();
        assert!(only(&found(&log)).contains("confirmed as 7, and seen as 8"));
    }

    #[test]
    fn a_loss_is_counted_where_its_node_and_its_redis_died() {
        let mut log = good();
        log[5] = nothing(2);
        let lost = |faults: &[Record]| found(&[&log[..], faults].concat());
        let (forgot, died) = (
            fault(520, 900, Harm::RedisForgot(Time::ZERO), false),
            |node, from| fault(from, from + 10, Harm::NodeDied(node), false),
        );
        assert_eq!(lost(&[forgot.clone(), died(1, 600)]).died_together, 1);
        assert_eq!(
            lost(&[forgot.clone(), died(1, 1800)]).died_together,
            1,
            "before it put it again"
        );
        // A node that died before is no excuse for what only Redis lost.
        let later = fault(1700, 2000, Harm::RedisForgot(Time::ZERO), false);
        only(&lost(&[later, died(1, 600)]));
        // No excuse either: another node died; the node died before it confirmed; it died after
        // it restored the status; or Redis lost only statuses that it stored later.
        only(&lost(&[forgot.clone(), died(0, 600)]));
        only(&lost(&[forgot.clone(), died(1, 100)]));
        only(&lost(&[forgot.clone(), died(1, 2000)]));
        only(&lost(&[
            fault(
                520,
                900,
                Harm::RedisForgot(Duration::from_millis(510)),
                false,
            ),
            died(1, 600),
        ]));
        only(&lost(&[forgot]));
        only(&lost(&[died(1, 600)]));
    }

    /// Returns a log of a set whose outcome nobody knows, then of one that is confirmed and
    /// seen.
    fn unknown_then_confirmed() -> Vec<Record> {
        let unknown = [sent(90), told(90, Outcome::Unknown)];
        [&unknown[..], &good()].concat()
    }

    #[test]
    fn an_older_set_that_is_seen_behind_a_newer_one_is_found() {
        // A page that was told the newer set sees the older one, and so does a page that knows
        // nothing.
        for (which, last) in [(0, 7), (5, 0)] {
            let late = [asked(3, which, last), answered(3, 8, 90)];
            let verdict = found(&[&unknown_then_confirmed()[..], &late].concat());
            assert!(
                verdict
                    .broken
                    .iter()
                    .any(|what| what.contains("after set 100 had been confirmed")),
                "{verdict:?}"
            );
            let is_same_page = verdict
                .broken
                .iter()
                .any(|what| what.contains("an older one"));
            assert_eq!(is_same_page, which == 0, "{verdict:?}");
        }
        // The older set took effect before the newer one.
        let early = [
            sent(90),
            told(90, Outcome::Unknown),
            asked(3, 5, 0),
            answered(3, 6, 90),
        ];
        assert!(found(&[&early[..], &good()].concat()).broken.is_empty());
    }

    #[test]
    fn a_redis_that_refuses_writes_and_is_said_to_be_gone_is_found() {
        let refused = |is_full| fault(650, 2000, Harm::Refused { is_full }, false);
        let set = |outcome| [sent(101), told(101, outcome)];
        let with =
            |more: &[Record], is_full| found(&[&good()[..], more, &[refused(is_full)]].concat());
        assert!(with(&set(Outcome::Full), true).broken.is_empty());
        assert!(with(&set(Outcome::Refused), false).broken.is_empty());
        only(&with(&set(Outcome::Refused), true));
        only(&with(&set(Outcome::Unknown), false));
        let get = |last| {
            [
                asked(3, 5, last),
                Record::Answered {
                    get: 3,
                    answer: Answer::Nothing(-6),
                },
            ]
        };
        assert!(
            with(&get(7), true).broken.is_empty(),
            "there is nothing newer"
        );
        only(&with(&get(0), true));
        let also = fault(700, 750, Harm::None, false);
        assert!(
            found(&[&good()[..], &get(0), &[refused(true), also]].concat())
                .broken
                .is_empty()
        );
    }

    #[test]
    fn an_older_set_is_seen_where_redis_forgot_or_its_clock_went_back() {
        let late = [asked(3, 5, 0), answered(3, 8, 90)];
        let log = [&unknown_then_confirmed()[..], &late].concat();
        let with = |fault: Record| found(&[&log[..], &[fault]].concat());
        let forgot = with(fault(850, 880, Harm::RedisForgot(Time::ZERO), false));
        assert!(
            forgot.broken.is_empty() && forgot.of_recovery == 1,
            "{forgot:?}"
        );
        let back = with(fault(
            300,
            880,
            Harm::RedisClock {
                off: Duration::from_secs(5),
                ahead: true,
            },
            false,
        ));
        only(&with(fault(
            1100,
            1200,
            Harm::RedisClock {
                off: Duration::from_secs(5),
                ahead: false,
            },
            false,
        )));
        assert!(
            back.broken.is_empty() && back.of_two_clocks == 1,
            "{back:?}"
        );
        only(&with(fault(100, 900, Harm::None, false)));
        let died = with(fault(100, 900, Harm::NodeDied(1), false));
        only(&died);
    }
}
