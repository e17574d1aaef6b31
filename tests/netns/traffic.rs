//! What BackendPolicy and HTTPRoute promise, seen from both ends: balancing,
//! retries, breaking, limits, timeouts, and that nothing grows.
//!
//! Applications and callers are the test's own, so every request is counted at
//! both ends.

mod balancing;
mod breaking;
mod growth;
mod limits;
mod retries;

use std::{net::SocketAddr, time::Duration};

use weft_tests::{
    traffic::{Answer, Application, Asked},
    world::{self, Pod, World},
};

const PORT: u16 = 8080;

/// Service shop/web, its policy, and as many pods as there are answers.
struct Shop {
    client: Pod,
    applications: Vec<Application>,
    pods: Vec<Pod>,
    world: World,
}

type Answers = Box<dyn Fn(&Asked) -> Answer + Send + Sync>;

impl Shop {
    fn new(policy: &str, answers: impl IntoIterator<Item = Answers>) -> Self {
        Self::with(policy, &[], answers)
    }

    fn with(
        policy: &str,
        knobs: &[(&str, &str)],
        answers: impl IntoIterator<Item = Answers>,
    ) -> Self {
        let manifests = format!("{}{policy}", world::service("shop/web", &[PORT]));
        let world = World::with(true, &manifests, knobs);
        let (mut pods, mut applications) = (Vec::new(), Vec::new());
        for (number, answer) in answers.into_iter().enumerate() {
            let pod = world.idle(&format!("shop/web-{number}"));
            applications.push(Application::start(pod.listen(PORT), answer));
            pods.push(pod);
        }
        let client = world.idle("shop/client-0");
        Self {
            client,
            applications,
            pods,
            world,
        }
    }

    /// The service's address.
    fn web(&self) -> SocketAddr {
        SocketAddr::new(self.client.resolve("web"), PORT)
    }

    fn requests(&self) -> Vec<u64> {
        self.applications
            .iter()
            .map(Application::requests)
            .collect()
    }
}

/// Answers with the application's number.
fn named(number: usize) -> Answers {
    Box::new(move |_| Answer::ok(number.to_string()))
}

fn always(answer: Answer) -> Answers {
    Box::new(move |_| answer.clone())
}

/// A BackendPolicy of shop/web.
fn policy(spec: &str) -> String {
    policy_of("web", spec)
}

fn policy_of(service: &str, spec: &str) -> String {
    format!(
        "apiVersion: weft.dev/v1alpha1\nkind: BackendPolicy\nmetadata: {{name: {service}, namespace: shop}}\nspec:\n  targetRefs: [{{group: \"\", kind: Service, name: {service}}}]\n{spec}\n---\n"
    )
}

/// A share of `all` that is within `percent` of `fair`.
fn is_fair(share: u64, fair: f64, percent: f64) -> bool {
    let share = u32::try_from(share).map(f64::from).unwrap_or(f64::MAX);
    (share - fair).abs() <= fair * percent / 100.0
}

const fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}
