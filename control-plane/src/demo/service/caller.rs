//! Calls as told on standard input, counts, and reports on standard output.
//!
//! `demo::caller` is the other end. Ends with its input. Statuses and errors
//! are counted as they come: nothing is tried twice, nothing left out.

use std::{
    collections::HashMap,
    io::Write,
    os::fd::AsFd,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::Context;
use bytes::Bytes;
use http::{HeaderMap, Method, Response, header::HeaderName};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    net::unix::pipe,
    time::{Instant, MissedTickBehavior, interval},
};

use super::{
    client::{Client, SERVED_BY},
    payment::Customer,
};
use crate::{
    demo::job::{Answer, Ask, Job, Report, Target},
    runtime::Tasks,
};

const PROXY_STATUS: HeaderName = HeaderName::from_static("proxy-status");

pub(crate) async fn run() -> anyhow::Result<()> {
    let input = std::io::stdin().as_fd().try_clone_to_owned()?;
    let input = pipe::Receiver::from_owned_fd(input).context("standard input is not a pipe")?;
    let mut asks = BufReader::new(input).lines();
    let mut jobs = Tasks::new();
    let mut running: HashMap<u64, Arc<Tally>> = HashMap::new();
    while let Some(line) = asks.next_line().await? {
        running.retain(|_, tally| !tally.ended.load(Ordering::Relaxed));
        match serde_json::from_str(&line)? {
            Ask::Start(job) => {
                let tally = Arc::new(Tally::new(&job));
                running.insert(job.id, Arc::clone(&tally));
                jobs.spawn(work(job, tally));
            }
            Ask::Stop(id) => {
                if let Some(tally) = running.get(&id) {
                    tally.stopped.store(true, Ordering::Relaxed);
                }
            }
        }
    }
    Ok(())
}

/// What a job's lanes share.
#[derive(Debug)]
struct Tally {
    /// Requests that no lane has begun yet.
    left: AtomicU64,
    stopped: AtomicBool,
    ended: AtomicBool,
    report: Mutex<Report>,
}

impl Tally {
    fn new(job: &Job) -> Self {
        Self {
            left: AtomicU64::new(job.requests.unwrap_or(u64::MAX)),
            stopped: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            report: Mutex::new(Report {
                id: job.id,
                ..Report::default()
            }),
        }
    }

    /// One more request, unless the job is over.
    fn begin(&self) -> bool {
        let take = |left: u64| left.checked_sub(1);
        !self.stopped.load(Ordering::Relaxed)
            && self
                .left
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, take)
                .is_ok()
    }

    fn count(&self, answered: Result<Answer, String>, took: Duration) {
        let mut report = self.report.lock().unwrap_or_else(PoisonError::into_inner);
        let took = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        report.slowest_milliseconds = report.slowest_milliseconds.max(took);
        report.last_second += 1;
        match answered {
            Ok(answer) => {
                *report.answers.entry(answer.status.clone()).or_default() += 1;
                if let Some(pod) = &answer.served_by {
                    *report.served_by.entry(pod.clone()).or_default() += 1;
                }
                report.last = Some(answer);
            }
            Err(what) => *report.errors.entry(what).or_default() += 1,
        }
    }

    fn tell(&self, ended: bool) {
        let mut report = self.report.lock().unwrap_or_else(PoisonError::into_inner);
        report.ended = ended;
        let mut line = serde_json::to_vec(&*report).expect("plain data with string keys");
        line.push(b'\n');
        report.last_second = 0;
        // Who no longer listens has closed our input as well.
        let mut out = std::io::stdout();
        let _ = out.write_all(&line).and_then(|()| out.flush());
    }
}

async fn work(job: Job, tally: Arc<Tally>) {
    let lanes = (0..job.lanes).map(|_| lane(&job, &tally));
    let lanes = futures_util::future::join_all(lanes);
    tokio::pin!(lanes);
    let mut second = interval(Duration::from_secs(1));
    second.tick().await;
    loop {
        tokio::select! {
            _ = &mut lanes => break,
            _ = second.tick() => tally.tell(false),
        }
    }
    tally.ended.store(true, Ordering::Relaxed);
    tally.tell(true);
}

async fn lane(job: &Job, tally: &Tally) {
    let pause = |rate: u32| Duration::from_secs(1) * job.lanes / rate.max(1);
    let mut pace = job.per_second.map(|rate| interval(pause(rate)));
    if let Some(pace) = &mut pace {
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    }
    let mut client = Client::default();
    let mut customer = match &job.target {
        Target::Charge(address) => Some(Customer::new(address)),
        Target::Get(_) | Target::Put { .. } => None,
    };
    while tally.begin() {
        if let Some(pace) = &mut pace {
            pace.tick().await;
        }
        let began = Instant::now();
        let answered = match (&job.target, &mut customer) {
            (Target::Get(url), _) => get(&mut client, Method::GET, url, "").await,
            (Target::Put { url, body }, _) => get(&mut client, Method::PUT, url, body).await,
            (Target::Charge(_), Some(customer)) => customer.charge().await,
            (Target::Charge(_), None) => Err("no customer".to_owned()),
        };
        tally.count(answered, began.elapsed());
    }
}

async fn get(client: &mut Client, method: Method, url: &str, body: &str) -> Result<Answer, String> {
    let body = Bytes::copy_from_slice(body.as_bytes());
    let response: Response<Bytes> = client.send(method, url, body).await?;
    Ok(Answer {
        status: response.status().as_str().to_owned(),
        served_by: text(response.headers(), &SERVED_BY),
        proxy_status: text(response.headers(), &PROXY_STATUS),
        body: String::from_utf8_lossy(response.body()).into_owned(),
    })
}

fn text(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    headers.get(name)?.to_str().ok().map(ToOwned::to_owned)
}
