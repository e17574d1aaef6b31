//! Every block of docs/traffic-policy.md holds, beside the Services and pods that it names.

use super::*;
use crate::index::Index;

const COOKBOOK: &str = include_str!("../../../../../docs/traffic-policy.md");

/// The text of each ```yaml block.
fn blocks() -> Vec<&'static str> {
    let after = COOKBOOK.split("```yaml\n").skip(1);
    after
        .filter_map(|rest| rest.split_once("\n```").map(|it| it.0))
        .collect()
}

fn services() -> String {
    let names = [
        "cart",
        "cart-v1",
        "cart-v2",
        "checkout",
        "payment",
        "payment-v2",
    ];
    let service = |(at, name): (usize, &str)| {
        format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{namespace: shop, name: {name}}}\n\
             spec: {{clusterIP: 10.96.0.{at}, clusterIPs: [10.96.0.{at}], selector: {{app: {name}}}, ports: [{{port: 80}}]}}\n---\n"
        )
    };
    let pod = "apiVersion: v1\nkind: Pod\n\
        metadata: {namespace: shop, name: cart-0, labels: {app: cart, weft.dev/inject: enabled}}\n\
        spec: {containers: [{name: cart}]}\n---\n";
    let services = names.into_iter().enumerate();
    services
        .map(|(at, name)| service((at + 1, name)))
        .chain([pod.to_owned()])
        .collect()
}

#[tokio::test]
async fn every_block_of_the_cookbook_holds() {
    let blocks = blocks();
    assert!(blocks.len() >= 10, "{} blocks", blocks.len());
    for block in blocks {
        let mut world = World::with("", |directory| {
            fs::write(directory.join("services.yaml"), services()).unwrap();
            fs::write(directory.join("block.yaml"), block).unwrap();
        });
        let update = world.updates.recv().await.unwrap();
        assert_eq!(update.problems, [], "{block}");
        let mut index = Index::new(&[]);
        let beside = services().matches("kind:").count();
        assert!(update.events.len() > beside, "{block}");
        for event in update.events {
            index.apply(event);
        }
        let problems: Vec<_> = index.problems().collect();
        assert!(problems.is_empty(), "{block}: {problems:?}");
    }
}
