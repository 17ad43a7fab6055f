//! Sets of a key that a page follows: its waiter stays in the registry while it gets news.

use super::*;

/// The wait of a page that follows its key.
struct Follower {
    slot: Arc<Slot>,
    ends: Ends,
}

impl Waiting for Follower {
    type Shared = Slot;

    fn shared(&self) -> &Arc<Slot> {
        &self.slot
    }

    fn poll_interrupted(&mut self, _: Instant, cx: &mut Context<'_>) -> Poll<Interruption<News>> {
        match (self.slot.poll(cx), self.ends) {
            (Poll::Ready(end), _) => Poll::Ready(Interruption::Delivery(end)),
            (Poll::Pending, Ends::Never) => Poll::Pending,
            (Poll::Pending, _) => Poll::Ready(Interruption::Deadline),
        }
    }
}

/// Follows a key from version `last` on for one wait, or until version `until` comes. Returns the
/// versions that were heard.
async fn follow(
    waiters: &Arc<Waiters>,
    store: &OneKey,
    last: u64,
    until: u64,
    ends: Ends,
) -> Vec<u64> {
    let last = Version::new(last).expect("small");
    let slot = Slot::new(last);
    let waiting = Follower { slot, ends };
    let registered = Registered::new(waiters, &key(), last, waiting, None).expect("room");
    let now = Instant::now();
    let version = |news: &News| news.update.version().get();
    let mut heard = Vec::new();
    let end = match registered
        .open_by(async { (1, Ok(store.open(last))) }, || (), now)
        .await
    {
        Err(end) => end,
        Ok(mut opened) => loop {
            let interruption = poll_fn(|cx| opened.poll_interrupted(now, cx)).await;
            if let Interruption::Delivery(DeliveryEnd::Handed(news)) = &interruption {
                heard.push(version(news));
                if version(news) < until {
                    continue;
                }
                return heard;
            }
            break opened.end(interruption).await;
        },
    };
    if let End::News(news) = &end {
        heard.push(version(news));
    }
    heard
}

/// Tries all orders of two sets and a page that follows their key, in one wait or in several.
fn check_follower(ends: Ends) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(2);
    model.check(move || {
        let (waiters, store) = (Waiters::new(10, 10), Arc::<OneKey>::default());
        let sets = spawn_sets(2, &waiters, &store);
        let mut heard = block_on(follow(&waiters, &store, 0, 2, ends));
        if ends == Ends::Never {
            // The open may have found the first status. The next wait begins behind it.
            while heard.last() != Some(&2) {
                let last = heard.last().copied().unwrap_or_default();
                heard.extend(block_on(follow(&waiters, &store, last, 2, ends)));
            }
        }
        assert!(heard.is_sorted_by(|a, b| a < b), "backwards: {heard:?}");
        let last = heard.last().copied().unwrap_or_default();
        for set in sets {
            let (count, version) = set.join().expect("no panic");
            assert!(count <= 1);
            assert!(count == 0 || version <= last, "lost {version}: {heard:?}");
        }
        assert!(waiters.is_empty());
    });
}

#[test]
fn loom_a_page_that_follows_its_key_hears_of_the_newest_of_two_sets() {
    check_follower(Ends::Never);
}

#[test]
fn loom_what_a_page_that_stops_following_was_given_is_heard() {
    check_follower(Ends::Deadline);
}
