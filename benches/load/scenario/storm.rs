//! All pages are cut off and come back at once, as after a network failure. They are more than
//! the backlog takes.

use std::collections::VecDeque;
use std::time::Instant;

use super::{Sample, hold_all, rest, set_in_turn, settle, wait_held};
use crate::Outcome;
use crate::args::Sizes;
use crate::client::Client;
use crate::server::Server;

pub(super) fn run(server: &Server, sizes: &Sizes) -> Outcome<Sample> {
    let mut sample = Sample::default();
    let mut client = Client::new(server, sizes.waiters, sizes.setters)?;
    hold_all(&mut client, server, sizes.waiters)?;
    rest()?;
    let (cpu, start) = (server.cpu_ns()?, Instant::now());
    for page in 0..sizes.waiters {
        client.close(page);
    }
    for page in 0..sizes.waiters {
        client.open(page)?;
        if page % 256 == 0 {
            client.turn(std::time::Duration::ZERO)?;
        }
    }
    wait_held(&mut client, server, sizes.waiters)?;
    sample.put("back_seconds", start.elapsed().as_secs_f64());
    sample.put(
        "back_cpu_us",
        (server.cpu_ns()? - cpu) as f64 / 1e3 / sizes.waiters as f64,
    );
    client.renew_setters()?;
    // The count of held gets may still include old ones. Setting each key shows that the new
    // gets are held.
    set_in_turn(
        &mut client,
        &mut (0..sizes.waiters).collect::<VecDeque<_>>(),
        sizes.waiters,
    )?;
    settle(&mut client, &mut sample)?;
    Ok(sample)
}
