//! Access: a guest who could see everybody's cart no longer can, is told why,
//! and the shopper notices nothing.

use anyhow::Context;
use tokio::time::{Instant, timeout};

use super::EDIT_LIMIT;
use crate::demo::{
    board::Board,
    finding::Finding,
    job::{Answer, Target},
    shop::{CART, Shop},
};

pub(crate) async fn show(shop: &mut Shop, board: &Board) -> anyhow::Result<Finding> {
    let open = shop.guest()?.call(cart()).await?;
    board.say(&format!(
        "the guest sees the cart ({}); a policy is written",
        open.status
    ));
    let written = Instant::now();
    shop.apply(CART)?;
    let denied = timeout(EDIT_LIMIT * 5, until_denied(shop))
        .await
        .context("the policy did not take effect")??;
    let took = written.elapsed();
    let shopper = shop.shopper()?.call(cart()).await?;
    let reason = denied.proxy_status.clone().unwrap_or_default();

    let mut finding = Finding::default();
    finding.measure("guest_before", open.status.as_str());
    finding.measure("guest_after", denied.status.as_str());
    finding.measure("proxy_status", reason.as_str());
    finding.measure("shopper_after", shopper.status.as_str());
    finding.measure("policy_in_effect_milliseconds", took.as_secs_f64() * 1000.0);
    finding.check(open.is_ok(), || {
        format!("the guest was answered {} at first", open.status)
    });
    finding.check(denied.status == "403", || {
        format!("the guest is answered {}", denied.status)
    });
    finding.check(reason.contains("access-denied"), || {
        format!("the reason is {reason:?}")
    });
    finding.check(denied.served_by.is_none(), || {
        "the cart has seen the guest's call".to_owned()
    });
    finding.check(shopper.is_ok(), || {
        format!("the shopper is answered {}", shopper.status)
    });
    finding.check(took < EDIT_LIMIT, || format!("the policy took {took:?}"));
    finding.told = format!(
        "guest {}, proxy-status: {reason}; shopper {}",
        denied.status, shopper.status
    );
    Ok(finding)
}

fn cart() -> Target {
    Target::Get("http://cart.shop/".to_owned())
}

async fn until_denied(shop: &mut Shop) -> anyhow::Result<Answer> {
    loop {
        let answer = shop.guest()?.call(cart()).await?;
        if !answer.is_ok() {
            return Ok(answer);
        }
    }
}
