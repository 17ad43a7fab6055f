use std::future::{Ready, ready};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http_body_util::Full;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::{Instant, sleep, timeout};

use super::*;
use crate::http::origin::Grant;
use crate::model::cause::Cause;
use crate::model::mistake::{Fault, Mistake};
use crate::model::status::{Outcome, Status, Value, Version as StatusVersion};
use crate::net::parked::Carrier;
use crate::page::script::{Callback, Form};
use crate::runtime::right_to_answer::{DeliveryEnd, Interruption};

const SECOND: Duration = Duration::from_secs(1);

/// A held request whose answer is known beforehand.
#[derive(Debug)]
struct Fixed(Mutex<Option<Response>>);

impl parked::Request for Fixed {
    type News = ();
    type Outcome = ();

    fn answer(&self, (): &()) -> Response {
        lock(&self.0).take().expect("asked for once")
    }

    fn left(&self) {}

    fn wait(&self) -> Duration {
        Duration::ZERO
    }

    async fn hold<C: Carrier>(parked: &Arc<Parked<Self, C>>, _: &mut Wakes) {
        parked.answer(&());
    }
}

fn parks(response: Response) -> Handling<Ready<Response>, Fixed> {
    Handling::Park(Fixed(Mutex::new(Some(response))))
}

fn of_length(bytes: usize) -> Response {
    Response::new(Full::from(vec![b'x'; bytes]))
}

/// Serves a connection. Returns its client's side and the signal to stop.
fn connect<H>(handler: H, timeouts: Timeouts) -> (UnixStream, Arc<Stop>)
where
    H: Fn(Request) -> Handling<Ready<Response>, Fixed> + Send + Sync + 'static,
{
    let (stream, client) = UnixStream::pair().expect("a pair of sockets");
    let stop = Arc::<Stop>::default();
    let (stop_, metrics) = (Arc::clone(&stop), Arc::default());
    let shared = Shared {
        handler,
        http1: http1(false),
        timeouts,
        stop: stop_,
        metrics,
    };
    tokio::spawn(serve(Stream::Unix(stream), Arc::new(shared), ()));
    (client, stop)
}

fn patient() -> Timeouts {
    Timeouts {
        head: SECOND * 10,
        idle: SECOND * 10,
        write: SECOND * 10,
    }
}

/// Reads to the end, and checks that each answer has a good head. Returns the bodies'
/// lengths.
async fn bodies(client: &mut UnixStream) -> Vec<usize> {
    let mut bytes = Vec::new();
    client.read_to_end(&mut bytes).await.expect("a clean end");
    let (mut text, mut bodies) = (&*String::from_utf8(bytes).expect("UTF-8"), Vec::new());
    while let Some((head, rest)) = text.split_once("\r\n\r\n") {
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "))
            .expect("a length");
        let length = length.parse().expect("a number");
        bodies.push(length);
        text = &rest[length..];
    }
    assert_eq!(text, "");
    bodies
}

/// Returns the answer to one request, without its date. Reads to the end if the answer says
/// that the connection closes.
async fn answered(
    request: &str,
    response: &Response,
    is_parked: bool,
    is_stopping: bool,
) -> String {
    let response = response.clone();
    let answer = move |_: Request| {
        let response = response.clone();
        if is_parked {
            parks(response)
        } else {
            Handling::Answer(ready(response))
        }
    };
    let (mut client, stop) = connect(answer, patient());
    if is_stopping {
        stop.advance(Course::Stopping);
    }
    client.write_all(request.as_bytes()).await.expect("written");
    let mut text = String::new();
    let is_whole = |text: &str| {
        let (head, body) = text.split_once("\r\n\r\n")?;
        let length: usize = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "))?
            .parse()
            .ok()?;
        Some(body.len() >= length)
    };
    while is_whole(&text) != Some(true) {
        let mut buffer = [0; 1000];
        let read = client.read(&mut buffer).await.expect("an answer");
        assert!(read > 0, "{text}");
        text.push_str(str::from_utf8(&buffer[..read]).expect("UTF-8"));
    }
    if text.contains("connection: close\r\n") {
        client.read_to_string(&mut text).await.expect("the end");
    }
    let is_date =
        |line: &str| line.starts_with("date: ") && line.ends_with(" GMT\r\n") && line.len() == 37;
    assert!(text.split_inclusive('\n').any(is_date), "{text}");
    text.split_inclusive('\n')
        .filter(|line| !is_date(line))
        .collect()
}

fn responses() -> Vec<Response> {
    let policy = HeaderValue::from_static("cross-origin");
    let version = StatusVersion::new(7).expect("good");
    let raw = serde_json::value::to_raw_value("a value").expect("JSON");
    let value = Value::new(&raw, 100).expect("good");
    let callback = Callback::parse("cb").expect("good");
    let outcomes = [
        Outcome::Success(Status {
            version,
            value,
            is_final: true,
        }),
        Outcome::Timeout,
        Outcome::Retry,
        Outcome::Busy,
        Outcome::Gone(version),
        Outcome::Invalid(Mistake::new("key", Fault::Missing)),
        Outcome::Unavailable(Cause::Late),
    ];
    let forms = [Form::Json, Form::Jsonp(callback)];
    let answer = |form: &Form, outcome: &Outcome| {
        crate::page::answer::answer(form, &Grant::Any, outcome, version, Some(100), &policy)
    };
    let mut responses: Vec<_> = outcomes
        .iter()
        .flat_map(|outcome| forms.iter().map(move |form| answer(form, outcome)))
        .collect();
    responses.push(Response::default());
    responses
}

#[tokio::test]
async fn a_parked_request_is_answered_with_hyper_s_bytes() {
    for response in responses() {
        for fields in [
            "",
            "connection: close\r\n",
            "connection: keep-alive\r\n",
            "connection: foo, Close\r\n",
        ] {
            for version in ["1.0", "1.1"] {
                for is_stopping in [false, true] {
                    let request = format!("GET / HTTP/{version}\r\nhost: a\r\n{fields}\r\n");
                    let parked = answered(&request, &response, true, is_stopping).await;
                    let mut hyper = answered(&request, &response, false, is_stopping).await;
                    // hyper, asked to close, also says to HTTP/1.0 that the connection
                    // stays.
                    hyper = hyper.replace("connection: close, keep-alive", "connection: close");
                    assert_eq!(parked, hyper, "{request}");
                }
            }
        }
    }
}

#[tokio::test]
async fn earlier_answers_are_written_whole_to_a_sleeping_reader_before_a_request_is_held() {
    const LONG: usize = 4_000_000;
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let answer = move |request: Request| {
        count.fetch_add(1, Ordering::Relaxed);
        if request.uri().path() == "/held" {
            parks(of_length(3))
        } else {
            Handling::Answer(ready(of_length(LONG)))
        }
    };
    let (mut client, _stop) = connect(answer, patient());
    let requests = "GET / HTTP/1.1\r\nhost: a\r\n\r\nGET /held HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
    client
        .write_all(requests.as_bytes())
        .await
        .expect("written");
    sleep(SECOND / 5).await;
    assert_eq!(
        asked.load(Ordering::Relaxed),
        1,
        "the next head is read when the answer before it is written"
    );
    assert_eq!(bodies(&mut client).await, [LONG, 3]);
}

#[tokio::test]
async fn requests_behind_a_held_one_are_answered_in_their_order_however_they_come() {
    let (mut client, _stop) = connect(|_| parks(of_length(5)), patient());
    let request = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";
    // Some together, one in two pieces, and the last alone.
    client
        .write_all(request.repeat(3).as_bytes())
        .await
        .expect("written");
    client
        .write_all(&request.as_bytes()[..9])
        .await
        .expect("written");
    sleep(SECOND / 20).await;
    client
        .write_all(&request.as_bytes()[9..])
        .await
        .expect("written");
    sleep(SECOND / 20).await;
    client
        .write_all(
            request
                .replace("host", "connection: close\r\nhost")
                .as_bytes(),
        )
        .await
        .expect("written");
    assert_eq!(bodies(&mut client).await, [5; 5]);
}

#[tokio::test]
async fn what_is_no_request_is_not_held() {
    let quick = Timeouts {
        head: SECOND / 10,
        idle: SECOND / 10,
        write: SECOND,
    };
    let handler = |request: Request| {
        assert_eq!(request.uri().path(), "/", "nothing else is asked for");
        Handling::Answer(ready(of_length(2)))
    };
    for (sent, answer) in [
        (&b"nonsense\r\n\r\n"[..], "HTTP/1.1 400 Bad Request\r\n"),
        (
            b"GET / HTTP/1.1\r\nhost: a\r\n\r\nnonsense\r\n\r\n",
            "HTTP/1.1 200 OK\r\n",
        ),
        // Half a head, and an idle connection.
        (b"GET / HTTP/1.1\r\nho", ""),
        (b"GET / HTTP/1.1\r\nhost: a\r\n\r\n", "HTTP/1.1 200 OK\r\n"),
    ] {
        let (mut client, _stop) = connect(handler, quick);
        client.write_all(sent).await.expect("written");
        let mut text = String::new();
        let read = timeout(SECOND * 5, client.read_to_string(&mut text)).await;
        read.expect("it is closed").expect("UTF-8");
        assert!(
            text.starts_with(answer) && text.is_empty() == answer.is_empty(),
            "{text}"
        );
    }
}

#[tokio::test]
async fn a_slow_reader_of_a_parked_answer_gets_all_of_it_and_one_that_does_not_read_is_cut_off() {
    const LONG: usize = 1_000_000;
    let request = b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
    let quick = Timeouts {
        write: SECOND / 4,
        ..patient()
    };
    let (mut client, _stop) = connect(|_| parks(of_length(LONG)), quick);
    client.write_all(request).await.expect("written");
    let (mut seen, mut buffer) = (0, vec![0; 100_000]);
    loop {
        sleep(SECOND / 20).await;
        match client.read(&mut buffer).await.expect("no reset") {
            0 => break,
            read => seen += read,
        }
    }
    assert!(seen > LONG, "{seen}");

    let (mut client, _stop) = connect(|_| parks(of_length(LONG)), quick);
    client.write_all(request).await.expect("written");
    sleep(SECOND).await;
    let mut bytes = Vec::new();
    client.read_to_end(&mut bytes).await.expect("what there is");
    assert!(bytes.len() < LONG, "{}", bytes.len());
}

#[tokio::test]
async fn a_parked_connection_that_was_answered_rests_until_it_is_idle_for_too_long_or_all_end() {
    let short = Timeouts {
        idle: SECOND / 4,
        ..patient()
    };
    for (timeouts, ends) in [(short, false), (patient(), true)] {
        let (mut client, stop) = connect(|_| parks(of_length(5)), timeouts);
        for _ in 0..3 {
            client
                .write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
                .await
                .expect("written");
            let mut buffer = [0; 1000];
            assert!(client.read(&mut buffer).await.expect("an answer") > 5);
        }
        if ends {
            stop.advance(Course::Stopping);
            stop.advance(Course::Closing);
        }
        let end = timeout(SECOND * 5, client.read(&mut [0; 10]))
            .await
            .expect("it is closed");
        assert_eq!(end.expect("no reset"), 0);
    }
}

/// A held request that may wait for ten minutes.
#[derive(Debug)]
struct Patient;

impl parked::Request for Patient {
    type News = ();
    type Outcome = ();

    fn answer(&self, (): &()) -> Response {
        of_length(3)
    }

    fn left(&self) {}

    fn wait(&self) -> Duration {
        SECOND * 600
    }

    async fn hold<C: Carrier>(parked: &Arc<Parked<Self, C>>, wakes: &mut Wakes) {
        assert_eq!(parked.let_deliveries_answer(), None);
        let deadline = Instant::now() + SECOND * 600;
        assert_eq!(
            poll_fn(|cx| parked.poll_interrupted(deadline, wakes, cx)).await,
            Interruption::Delivery(DeliveryEnd::Answered)
        );
    }
}

#[tokio::test(start_paused = true)]
async fn who_may_wait_for_longer_than_rest_does_both_for_as_long_as_it_may() {
    for idle in [SECOND, SECOND * 75] {
        let (stream, _client) = UnixStream::pair().expect("a pair of sockets");
        let mut wakes = Wakes::new(&Arc::default());
        let exchange = Exchange {
            is_old: false,
            is_last: false,
        };
        let parked = Arc::new(Parked::connection(
            Patient,
            exchange,
            Stream::Unix(stream),
            Bytes::new(),
            idle,
            &wakes,
        ));
        let held = Arc::clone(&parked);
        let task = tokio::spawn(async move {
            <Patient as parked::Request>::hold(&held, &mut wakes).await;
            held.rest(&Timeouts { idle, ..patient() }, &mut wakes)
                .await
                .is_err()
        });
        sleep(SECOND * 200).await;
        let answered = Instant::now();
        parked.take_news((), true);
        assert!(
            task.await.expect("it waits for all of this"),
            "there is no next request"
        );
        let rested = answered.elapsed();
        assert!(
            rested >= idle && rested < idle + SECOND / 10,
            "{rested:?} instead of {idle:?}"
        );
    }
}

#[tokio::test]
async fn a_socket_that_is_said_to_be_readable_and_is_not_brings_no_next_request() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a free port");
    let address = listener.local_addr().expect("bound");
    let (client, accepted) =
        tokio::join!(tokio::net::TcpStream::connect(address), listener.accept());
    let (mut client, (stream, _)) = (client.expect("connected"), accepted.expect("accepted"));
    // The runtime assumes that a new socket is readable, until a read shows that it is not.
    let stream = Stream::tcp(stream);
    stream
        .poll_read_ready(&mut std::task::Context::from_waker(std::task::Waker::noop()))
        .is_ready();
    let mut wakes = Wakes::new(&Arc::default());
    let request = Fixed(Mutex::new(Some(of_length(3))));
    let exchange = Exchange {
        is_old: false,
        is_last: false,
    };
    let parked = Parked::connection(request, exchange, stream, Bytes::new(), SECOND * 10, &wakes);
    parked.answer(&());
    let timeouts = patient();
    let mut rest = Box::pin(parked.rest(&timeouts, &mut wakes));
    assert!(
        timeout(SECOND / 10, &mut rest).await.is_err(),
        "there is nothing to read"
    );
    client.write_all(b"GET").await.expect("written");
    let (_, ahead) = rest.await.expect("the next request's first bytes");
    assert_eq!(&*ahead, b"GET");
}
