//! Datagrams larger than the MTU, from the first packet of a flow on.

use lab::XdpMode;

use crate::{
    in_each_xdp_mode,
    scene::{Scene, outside, root},
};

/// Four fragments.
const LENGTH: usize = 5000;
const FRAGMENT: usize = 1400;

in_each_xdp_mode!(a_flow_may_begin_with_fragments, fragments_may_come_in_any_order);

fn a_flow_may_begin_with_fragments(xdp: XdpMode) {
    root();
    let scene = Scene::with_two_backends(xdp);
    let client = scene.client();
    for to in outside() {
        for length in [1473, LENGTH, 60_000] {
            for _ in 0..5 {
                assert_eq!(client.udp_once(to, length).unwrap().from, to);
            }
        }
        let flow = client.udp_unconnected(to).unwrap();
        let first = flow.exchange(LENGTH).unwrap();
        for length in [10, LENGTH, 10, 1472] {
            assert_eq!(flow.exchange(length).unwrap(), first, "all of a flow goes to one backend");
        }
    }
    scene.finish();
}

fn fragments_may_come_in_any_order(xdp: XdpMode) {
    root();
    let scene = Scene::with_two_backends(xdp);
    let client = scene.client();
    for to in outside() {
        for order in permutations(4) {
            let arrange = |packets: &mut Vec<Vec<u8>>| {
                assert_eq!(packets.len(), order.len());
                *packets = order.iter().map(|i| packets[*i].clone()).collect();
            };
            let answer = client.udp_in_fragments(to, LENGTH, FRAGMENT, arrange);
            let answer = answer.unwrap_or_else(|e| panic!("{to}, order {order:?}: {e}"));
            assert_eq!(answer.from, to);
        }
    }
    scene.finish();
}

/// All orders of the numbers below `n`.
fn permutations(n: usize) -> Vec<Vec<usize>> {
    let Some(last) = n.checked_sub(1) else { return vec![Vec::new()] };
    let insert = |order: &Vec<usize>, at: usize| {
        let mut longer = order.clone();
        longer.insert(at, last);
        longer
    };
    permutations(last)
        .iter()
        .flat_map(|order| (0..n).map(|at| insert(order, at)).collect::<Vec<_>>())
        .collect()
}
