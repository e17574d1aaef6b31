//! The same programs without the mesh and with it, and what is on the wire.
//!
//! Recorded between the pods by `weft run --capture`: a secret that the shopper
//! puts into the cart, which keeps it in its store. Opens the rest of the shop
//! on the way, since that takes its time.

use std::{ffi::OsString, fs, path::Path, time::Duration};

use anyhow::{Context, ensure};
use tokio::time::{interval, timeout};

use crate::demo::{board::Board, caller::LOOK, finding::Finding, job::Target, shop::Shop};

const SECRET: &str = "gift-card-4711-0815-for-Ada";
const URL: &str = "http://cart.shop/";
const PODS: [&str; 2] = ["store-0", "cart-0"];
const LIMIT: Duration = Duration::from_secs(5);
/// A record of application data, TLS 1.2's number on it as TLS 1.3 has it (RFC 8446 §5.1).
const RECORD: &[u8] = &[0x17, 0x03, 0x03];

pub(crate) async fn show(shop: &mut Shop, board: &Board) -> anyhow::Result<Finding> {
    let before = shop.directory().join("before.pcap");
    let after = shop.directory().join("after.pcap");
    board.say("cart and store without the mesh");
    start(shop, &before, &["--no-mesh"])?;
    super::opening::start(shop)?;
    board.watch(shop.shopper()?.reports());
    talk(shop).await?;
    let bytes = recorded(&before, |bytes| count(bytes, SECRET.as_bytes()) > 0).await?;
    let readable = count(&bytes, SECRET.as_bytes());

    board.say(&format!("readable {readable} times: {}", excerpt(&bytes)));
    shop.end(&PODS).await;
    shop.end_shopper().await;

    board.say("the same programs, each with a sidecar");
    start(shop, &after, &[])?;
    board.watch(shop.shopper()?.reports());
    talk(shop).await?;
    let so_far = fs::metadata(&after)?.len();
    // What comes later is recorded later, so then everything before is there.
    shop.shopper()?.call(Target::Get(URL.to_owned())).await?;
    let is_more = |bytes: &[u8]| u64::try_from(bytes.len()).is_ok_and(|it| it > so_far);
    let bytes = recorded(&after, |bytes| is_more(bytes) && count(bytes, RECORD) > 0).await?;
    let leaked = count(&bytes, SECRET.as_bytes());
    let records = count(&bytes, RECORD);

    let mut finding = Finding::default();
    finding.measure("readable_without_mesh", readable);
    finding.measure("readable_with_mesh", leaked);
    finding.measure("tls_records_with_mesh", records);
    finding.measure("recorded_bytes_with_mesh", bytes.len());
    finding.check(readable > 0, || {
        "the secret could not be read without the mesh".to_owned()
    });
    finding.check(leaked == 0, || {
        format!("the secret can be read {leaked} times with the mesh")
    });
    finding.told = format!(
        "the secret could be read {readable} times without the mesh, {leaked} times in {records} TLS records with it"
    );
    Ok(finding)
}

fn start(shop: &mut Shop, capture: &Path, options: &[&str]) -> anyhow::Result<()> {
    let options: Vec<OsString> = options.iter().map(OsString::from).collect();
    let mut recorded = options.clone();
    recorded.extend(["--capture".into(), capture.into()]);
    shop.start(&["store-0"], &options)?;
    shop.start(&["cart-0"], &recorded)?;
    shop.start_shopper(&options)
}

/// The shopper puts the secret into the cart, and finds it there.
async fn talk(shop: &mut Shop) -> anyhow::Result<()> {
    let put = Target::Put {
        url: URL.to_owned(),
        body: SECRET.to_owned(),
    };
    shop.until_open(put).await?;
    let answer = shop.shopper()?.call(Target::Get(URL.to_owned())).await?;
    ensure!(
        answer.is_ok() && answer.body == SECRET,
        "the cart answered {} {}",
        answer.status,
        answer.body
    );
    Ok(())
}

/// Waits until the recording has what it must.
async fn recorded(file: &Path, has: impl Fn(&[u8]) -> bool) -> anyhow::Result<Vec<u8>> {
    let mut look = interval(LOOK);
    let wait = async {
        loop {
            look.tick().await;
            let bytes = fs::read(file)?;
            if has(&bytes) {
                return anyhow::Ok(bytes);
            }
        }
    };
    let came = timeout(LIMIT, wait).await;
    came.with_context(|| format!("{} does not show what was said", file.display()))?
}

fn count(bytes: &[u8], what: &[u8]) -> usize {
    bytes.windows(what.len()).filter(|it| *it == what).count()
}

/// What is around the secret, as far as it can be read.
fn excerpt(bytes: &[u8]) -> String {
    let at = bytes
        .windows(SECRET.len())
        .position(|it| it == SECRET.as_bytes());
    let from = at.unwrap_or_default().saturating_sub(20);
    let part = bytes.iter().skip(from).take(SECRET.len() + 20);
    part.map(|byte| match byte {
        b' '..=b'~' => char::from(*byte),
        _ => '·',
    })
    .collect()
}
