//! Every fault of the closed list, provoked for real, and its one documented answer.
//!
//! `table` says how each is provoked and what reaches the application; `shop` is
//! the mesh that it happens in. For each row the client's view (status,
//! `proxy-status`, `grpc-status`, or a reset), the log line and the counter of
//! the proxy that made it are compared with `docs/faults.md`, and in the end the
//! counters of all proxies with what clients saw.

mod shop;
mod table;

use weft_tests::{
    probe::Ended,
    wait,
    world::{self, Pod},
};

use self::{
    shop::Shop,
    table::{ELSEWHERE, Reach, Row, Seen, TABLE, Tells},
};
use crate::documented::{self, Fault};

#[test]
fn every_fault_of_the_documented_list_has_a_row_or_a_reason_why_not() {
    let provoked: Vec<&str> = TABLE.iter().map(|row| row.fault).collect();
    for name in documented::names() {
        let elsewhere = ELSEWHERE.iter().find(|(fault, _)| *fault == name);
        assert!(
            provoked.contains(&name) != elsewhere.is_some(),
            "{name}: either a row of the table or a reason in ELSEWHERE"
        );
    }
    for name in provoked
        .iter()
        .copied()
        .chain(ELSEWHERE.iter().map(|(name, _)| *name))
    {
        let _ = documented::fault(name);
    }
}

#[test]
fn every_fault_has_its_one_documented_answer() {
    if !world::possible() {
        return;
    }
    let shop = Shop::open();
    let mut wrong = Vec::new();
    let mut due = 0;
    let before = shop.counted();
    for row in TABLE {
        match check(&shop, row) {
            Ok(faults) => due += faults,
            Err(why) => wrong.push(format!("{} ({}): {why}", row.fault, row.how)),
        }
    }
    assert!(
        wrong.is_empty(),
        "{} wrong:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    let counted = shop.counted() - before;
    assert_eq!(
        counted,
        f64::from(due),
        "the counters of all proxies, and what clients saw"
    );
}

/// Provokes a row; how many faults its clients saw.
fn check(shop: &Shop, row: &Row) -> Result<u32, String> {
    let due = documented::fault(row.fault);
    let teller = shop.teller(row.tells);
    let before = count(teller, row);
    let lines = logged(teller, row);
    shop.forget();
    let seen = (row.provoke)(shop);
    let faults = u32::try_from(seen.len()).map_err(|error| error.to_string())?;
    if seen.is_empty() {
        return Err("nobody saw anything".to_owned());
    }
    for one in &seen {
        judge(one, due, row)?;
    }
    let is_counted = || {
        let now = count(teller, row) - before;
        (now >= f64::from(faults)).then_some(now)
    };
    let counted = wait::within(LATE, is_counted)
        .ok_or_else(|| format!("counted {} of {faults} times", count(teller, row) - before))?;
    if counted > f64::from(faults) {
        return Err(format!("counted {counted} times, seen {faults} times"));
    }
    let is_logged = || (logged(teller, row) >= lines + seen.len()).then_some(());
    wait::within(LATE, is_logged).ok_or("not in the access log")?;
    match row.reach {
        Reach::Nothing => {
            let came = shop.heard();
            if !came.is_empty() {
                return Err(format!("the application got {}", came.escape_ascii()));
            }
        }
        Reach::Request => {}
    }
    Ok(faults)
}

/// For what is recorded when a connection's end has been noticed.
const LATE: std::time::Duration = std::time::Duration::from_secs(5);

fn judge(seen: &Seen, due: &Fault, row: &Row) -> Result<(), String> {
    let side = row.tells.side();
    match seen {
        Seen::Answer(answer) => {
            let told = answer.field("proxy-status").unwrap_or_default();
            if answer.status != due.status || told != due.proxy_status(side) {
                return Err(format!("answered {} {told:?}", answer.status));
            }
            let text = String::from_utf8_lossy(&answer.body).into_owned();
            if !text.starts_with(&format!("weft-{side}: {}.", due.name)) {
                return Err(format!("explained as {text:?}"));
            }
            if answer.head.to_ascii_lowercase().contains("weft-fault") {
                return Err(format!("the application is told {:?}", answer.head));
            }
            Ok(())
        }
        Seen::Grpc { status, grpc, told } => {
            if *status != 200 || *grpc != Some(due.grpc) || *told != due.proxy_status(side) {
                return Err(format!("gRPC answered {status}, {grpc:?}, {told:?}"));
            }
            Ok(())
        }
        Seen::Broken(Ended::Reset) => Ok(()),
        Seen::Broken(other) => Err(format!("the connection is {other:?}")),
    }
}

fn count(teller: &Pod, row: &Row) -> f64 {
    let labels = [("reason", row.fault), ("side", row.tells.side())];
    teller.metrics().sum("weft_traffic_faults_total", &labels)
}

fn logged(teller: &Pod, row: &Row) -> usize {
    let is_it = |line: &serde_json::Value| {
        let fault = &line["fault"];
        fault["reason"] == row.fault
            && fault["side"] == row.tells.side()
            && line["outcome"] == "faulted"
    };
    teller
        .access_log()
        .iter()
        .filter(|line| is_it(line))
        .count()
}

impl Tells {
    fn side(self) -> &'static str {
        match self {
            Self::Caller | Self::Uncertified => "outbound",
            Self::Called | Self::Unconfigured => "inbound",
        }
    }
}
