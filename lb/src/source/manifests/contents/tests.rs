use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::{model::ObjectName, source::manifests::object::Object};

const SERVICE: &str = "apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: {clusterIP: 10.96.0.1, ports: [{port: 80}]}\n";
const NODE: &str = "apiVersion: v1\nkind: Node\nmetadata:\n  name: n1\n";

fn yaml(text: &str) -> Contents {
    read("f.yaml", text, Format::Yaml, &Selector::default(), &Clean::new())
}

fn json(text: &str) -> Contents {
    read("f.json", text, Format::Json, &Selector::default(), &Clean::new())
}

fn names(contents: &Contents) -> Vec<(usize, String)> {
    contents.objects.iter().map(|(line, ((kind, name), _))| (*line, format!("{kind} {name}"))).collect()
}

/// The reason why the only object was rejected.
fn rejection(contents: &Contents) -> &str {
    assert_eq!(*contents.problems, [""; 0]);
    let [(_, (_, object))] = contents.objects.as_slice() else { panic!("{contents:?}") };
    object.rejected().expect("rejected")
}

/// The only problem of a file in which something could not be made out.
fn lost(contents: &Contents) -> &str {
    assert!(contents.incomplete);
    let [problem] = contents.problems.as_slice() else { panic!("{contents:?}") };
    problem
}

#[test]
fn splits_where_yaml_does() {
    for (text, expected) in [
        ("", vec![]),
        ("# nothing\n\n---\n# here\n...\n", vec![]),
        ("a: 1", vec![(1, 1)]),
        ("---\na: 1\n---\nb: 2\n", vec![(1, 2), (3, 4)]),
        ("# first\na: 1\n--- # second\n\nb: 2\n---\n---\n", vec![(1, 2), (3, 5)]),
        ("%YAML 1.2\n---\na: 1\n", vec![(1, 3)]),
        ("--- {a: 1}\n---\t{b: 2}\r\n---\r\nc: 3\r\n", vec![(1, 1), (2, 2), (3, 4)]),
        ("\u{feff}a: 1\n---\nb: 2", vec![(1, 1), (2, 3)]),
        ("a: |\n  ---\n  text\n---x: 1\n", vec![(1, 1)]),
        ("a: 1\n...\n---\nb: 2\n", vec![(1, 1), (3, 4)]),
        ("---\n---\n# here\n---\na: 1\n---\n---\n\n---\nb: 2\n", vec![(4, 5), (9, 10)]),
        ("# ahead\n---\n---\na: 1\n", vec![(3, 4)]),
    ] {
        let got: Vec<_> = split(text).iter().map(|d| (d.first, d.line)).collect();
        assert_eq!(got, expected, "{text:?}");
    }
}

#[test]
fn reads_documents_lists_and_json() {
    let contents = yaml(&format!("# comment\n{SERVICE}---\n{NODE}"));
    assert_eq!(names(&contents), [(2, "Service default/web".to_owned()), (7, "Node n1".to_owned())]);
    assert!(contents.problems.is_empty() && !contents.incomplete);

    let list = "apiVersion: v1\nkind: List\nmetadata: {resourceVersion: ''}\nitems:\n- {apiVersion: v1, kind: Service, metadata: {name: a, namespace: x}}\n- {apiVersion: v1, kind: Node, metadata: {name: b}}\n";
    assert_eq!(names(&yaml(list)), [(1, "Service x/a".to_owned()), (1, "Node b".to_owned())]);

    for (version, kind, single) in [
        ("v1", "ServiceList", "Service default/a"),
        ("v1", "NodeList", "Node a"),
        ("discovery.k8s.io/v1", "EndpointSliceList", "EndpointSlice default/a"),
        ("networking.k8s.io/v1", "ServiceCIDRList", "ServiceCIDR a"),
    ] {
        for text in [
            format!(
                r#"{{"apiVersion":"{version}","kind":"{kind}","items":[{{"metadata":{{"name":"a"}}}}]}}"#
            ),
            format!(
                r#"{{"items":[{{"metadata":{{"name":"a"}}}}],"kind":"{kind}","apiVersion":"{version}"}}"#
            ),
        ] {
            assert_eq!(names(&json(&text)), [(1, single.to_owned())], "{text}");
            assert_eq!(names(&yaml(&text)), [(1, single.to_owned())], "{text}");
        }
        for items in ["null", "[]"] {
            let text = format!(r#"{{"apiVersion":"{version}","kind":"{kind}","items":{items}}}"#);
            assert!(json(&text).objects.is_empty() && json(&text).problems.is_empty(), "{text}");
        }
    }
}

#[test]
fn sets_the_namespace_as_kubectl_does() {
    let service =
        |namespace: &str| format!("{{apiVersion: v1, kind: Service, metadata: {{name: a{namespace}}}}}");
    for (namespace, expected) in [
        ("", "default"),
        (", namespace: ''", "default"),
        (", namespace: null", "default"),
        (", namespace: x", "x"),
    ] {
        assert_eq!(names(&yaml(&service(namespace))), [(1, format!("Service {expected}/a"))]);
    }
    assert_eq!(
        names(&yaml("{apiVersion: v1, kind: Node, metadata: {name: a, namespace: x}}")),
        [(1, "Node a".to_owned())]
    );
}

#[test]
fn a_misspelt_field_rejects_the_object() {
    let text = format!("---\n{NODE}---\n\n{}", SERVICE.replace("port: 80", "prot: 80, extra: {a: 1}"));
    let contents = yaml(&text);
    let (_, (_, object)) = contents.objects.last().expect("the service");
    assert_eq!(
        object.rejected(),
        Some("f.yaml line 8: there are no fields spec.ports[0].extra, spec.ports[0].prot")
    );
    let list = r#"{"apiVersion":"v1","kind":"List","items":[{"apiVersion":"v1","kind":"Service","metadata":{"name":"a"},"x":1}]}"#;
    assert_eq!(rejection(&json(list)), "f.json line 1: items[0]: there is no field x");
}

#[test]
fn a_wrong_type_rejects_the_object_and_names_the_place() {
    let text = "apiVersion: v1\nkind: Service\nmetadata:\n  name: web\nspec:\n  ports:\n  - port: http\n";
    assert_eq!(rejection(&yaml(text)), "f.yaml: invalid i32 at line 7, column 11");
    assert_eq!(rejection(&yaml(&format!("#\n---\n{text}"))), "f.yaml: invalid i32 at line 9, column 11");
    let item = r#"{"apiVersion":"v1","kind":"Node","metadata":{"name":"a","labels":7}}"#;
    assert!(
        rejection(&json(item)).starts_with("f.json line 1: invalid type: "),
        "{}",
        rejection(&json(item))
    );
    let text = SERVICE.replace("clusterIP: 10.96.0.1", "type: Odd");
    assert!(rejection(&yaml(&text)).starts_with("f.yaml line 1: spec.type: \"Odd\" is not"));
}

#[test]
fn a_node_may_have_fields_that_are_not_known_yet() {
    let contents = yaml(&format!(
        "{NODE}status: {{declaredFeatures: [a], addresses: [{{type: InternalIP, address: 10.0.0.1}}]}}"
    ));
    let [(_, (_, object))] = contents.objects.as_slice() else { panic!("{contents:?}") };
    let Object::Node(Ok(converted)) = object.as_ref() else { panic!("{object:?}") };
    assert_eq!(converted.object.as_ref().expect("a node").addresses.len(), 1);
    assert_eq!(converted.notes, ["status.declaredFeatures is not known here"]);
    assert!(object.is_sound() && !contents.incomplete);
}

#[test]
fn both_versions_of_service_cidrs_are_read() {
    for version in ["networking.k8s.io/v1", "networking.k8s.io/v1beta1"] {
        let single = format!(
            "apiVersion: {version}\nkind: ServiceCIDR\nmetadata: {{name: a, namespace: x}}\nspec: {{cidrs: [10.96.0.0/12, 'fd00:96::/112']}}\n"
        );
        let list = format!(
            "apiVersion: {version}\nkind: ServiceCIDRList\nitems: [{{metadata: {{name: a}}, spec: {{cidrs: [10.96.0.0/12, 'fd00:96::/112']}}}}]\n"
        );
        for text in [single, list] {
            let contents = yaml(&text);
            assert_eq!(names(&contents), [(1, "ServiceCIDR a".to_owned())], "{text}");
            let (_, (_, object)) = &contents.objects[0];
            let Object::ServiceCidr(Ok(converted)) = object.as_ref() else { panic!("{object:?}") };
            assert_eq!(converted.object.as_ref().expect("an object").cidrs.len(), 2);
        }
        let text =
            format!("{{apiVersion: {version}, kind: ServiceCIDR, metadata: {{name: a}}, spec: {{cidr: a}}}}");
        assert_eq!(rejection(&yaml(&text)), "f.yaml line 1: there is no field spec.cidr");
        let text = format!("apiVersion: {version}\nkind: ServiceCIDR\nmetadata: {{name: a}}\n");
        assert_eq!(rejection(&yaml(&text)), "f.yaml line 1: spec is missing");
    }
}

#[test]
fn only_what_is_selected_is_served() {
    let edge = Selector::new(Some("edge".to_owned()));
    let labelled =
        SERVICE.replace("name: web", "name: web, labels: {service.kubernetes.io/service-proxy-name: edge}");
    for (text, selector, expected) in [
        (SERVICE, Selector::default(), true),
        (SERVICE, edge.clone(), false),
        (labelled.as_str(), Selector::default(), false),
        (labelled.as_str(), edge, true),
    ] {
        let contents = read("f.yaml", text, Format::Yaml, &selector, &Clean::new());
        let (_, (_, object)) = &contents.objects[0];
        let Object::Service(Ok(converted)) = object.as_ref() else { panic!("{object:?}") };
        assert_eq!(converted.object.is_some(), expected, "{text} {selector}");
        assert!(object.is_sound() && !contents.incomplete);
    }
}

#[test]
fn a_mistake_costs_only_its_document() {
    for (bad, problem) in [
        ("a: [1\n", "line 6"),
        ("\tkind: Service\n", "line 6"),
        ("a: 'open\n", "line "),
        ("kind: Service\nkind: Service\n", "line 7"),
        ("a: *nowhere\n", "line 6"),
        ("a text\n", "line 6"),
        ("- a: 1\n", "line 6"),
        ("a: 1\n b: 2\n", "line "),
    ] {
        let contents = yaml(&format!("{SERVICE}---\n{bad}---\n{NODE}"));
        assert_eq!(
            names(&contents).into_iter().map(|(_, name)| name).collect::<Vec<_>>(),
            ["Service default/web", "Node n1"],
            "{bad:?}"
        );
        assert!(lost(&contents).contains(problem), "{bad:?}: {}", lost(&contents));
    }
    for bad in ["", "{", r#"{"kind": "#, "[]", "7", r#"{"a":1} x"#, r#"{"a":1,"a":2}"#, "\"\u{0}\""] {
        assert!(lost(&json(bad)).contains("line 1") || bad == "\"\u{0}\"", "{bad:?}: {}", lost(&json(bad)));
    }
}

#[test]
fn an_object_without_identity_is_lost() {
    for (text, problem) in [
        ("{kind: Service}", "line 1: apiVersion is missing"),
        ("{apiVersion: v1}", "line 1: kind is missing"),
        ("{apiVersion: v1, kind: Service}", "line 1: Service: metadata is missing"),
        ("{apiVersion: v1, kind: Service, metadata: 1}", "line 1: Service: metadata is missing"),
        ("{apiVersion: v1, kind: Service, metadata: {}}", "line 1: Service: metadata.name is missing"),
        ("{apiVersion: v1, kind: Service, metadata: {name: 7}}", "line 1: Service: metadata.name is missing"),
        (
            "{apiVersion: v1, kind: Service, metadata: {name: a, namespace: 7}}",
            "line 1: Service: metadata.namespace is not",
        ),
        ("{apiVersion: v1, kind: List, items: 7}", "invalid type"),
        ("{apiVersion: v1, kind: List, items: [7]}", "line 1: items[0]: not an object"),
        ("{apiVersion: v1, kind: List, items: [{}]}", "line 1: items[0]: kind is missing"),
        ("{items: 7, apiVersion: v1, kind: List}", "line 1: items is not a list"),
    ] {
        assert!(lost(&yaml(text)).starts_with(problem), "{text}: {}", lost(&yaml(text)));
    }
    let contents = yaml("{apiVersion: v1, kind: Service, metadata: {name: Web}}");
    assert!(lost(&contents).starts_with("line 1: Service: metadata.name: \"Web\" is not"));
}

#[test]
fn other_kinds_are_skipped() {
    for kind in [
        "{apiVersion: apps/v1, kind: Deployment, metadata: {name: web}}",
        "{apiVersion: apps/v1, kind: DeploymentList, items: [{metadata: {name: web}}]}",
        "{apiVersion: batch/v1, kind: Job, metadata: {generateName: web-}}",
        "{apiVersion: serving.knative.dev/v1, kind: Service, metadata: {name: web}}",
        "{apiVersion: apiextensions.k8s.io/v1, kind: CustomResourceDefinition, metadata: {name: a.b.c}}",
        "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: web}}",
        "{apiVersion: networking.k8s.io/v1alpha1, kind: ServiceCIDR, metadata: {name: web}, spec: {ipv4: a}}",
        "{apiVersion: v1, kind: ConfigMap, metadata: {name: web}, data: {items: a}}",
        "{apiVersion: v1, kind: Namespace, metadata: {name: web}}",
        "{apiVersion: v1, kind: Endpoints, metadata: {name: web}}",
        "{apiVersion: v1, kind: PodList, items: [1]}",
        "{apiVersion: v1, kind: List, items: [{apiVersion: apps/v1, kind: Deployment, metadata: {name: web}}]}",
        "# a comment",
        "",
    ] {
        let contents = yaml(&format!("---\n{kind}\n---\n---\n{NODE}---\n---\n{kind}\n---\n"));
        assert_eq!(names(&contents).len(), 1, "{kind}");
        assert!(!contents.incomplete && contents.problems.is_empty(), "{kind}: {:?}", contents.problems);
    }
}

#[test]
fn a_kind_without_a_name_may_be_one_of_ours_cut_short() {
    let contents = yaml("apiVersion: v1\nkind: Serv");
    assert_eq!(lost(&contents), "line 1: v1 Serv without a name");
}

#[test]
fn a_kind_that_does_not_exist_may_be_one_of_ours_misspelt() {
    for kind in ["v2, kind: Service", "v1, kind: Servic", "discovery.k8s.io/v1, kind: EndpointSlices"] {
        let contents = yaml(&format!("{{apiVersion: {kind}, metadata: {{name: web}}}}"));
        assert!(lost(&contents).ends_with("is not read here"), "{kind}");
    }
}

#[test]
fn a_slice_without_its_lists_is_cut_short() {
    let head = "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n\
                metadata: {name: a, labels: {kubernetes.io/service-name: web}}\naddressType: IPv6\n";
    for (rest, missing) in [
        ("ports: []", Some("endpoints is missing ([] if there are none)")),
        ("endpoints: []", Some("ports is missing ([] if there are none)")),
        ("ports: null\nendpoints: null", None),
    ] {
        let contents = yaml(&format!("{head}{rest}"));
        let [(_, (_, object))] = contents.objects.as_slice() else { panic!("{rest}: no object") };
        assert_eq!(object.rejected().map(|r| r.rsplit(": ").next().unwrap()), missing, "{rest}");
    }
}

#[test]
fn more_may_follow_a_last_object_that_is_cut_short() {
    let service = "apiVersion: v1\nkind: Service\nmetadata: {name: web}\n";
    for rest in ["", "spec:\n", "spec:\n  type: ClusterIP\n", "spec:\n  clusterIP: 10.96.0.1\n"] {
        assert!(yaml(&format!("{NODE}---\n{service}{rest}")).incomplete, "{rest}");
        assert!(!yaml(&format!("{service}{rest}---\n{NODE}")).incomplete, "{rest}");
    }
    let ports =
        "spec:\n  clusterIP: 10.96.0.1\n  ports:\n  - port: 80\n  - name: b\n    port: 81\n    protocol: TC";
    assert!(yaml(&format!("{NODE}---\n{service}{ports}")).incomplete);
    assert!(!yaml(&format!("{NODE}---\n{service}{ports}P")).incomplete);
}

#[test]
fn unchanged_documents_are_not_read_again() {
    let old = yaml(&format!("{SERVICE}---\n{NODE}"));
    let new = read(
        "f.yaml",
        &format!("{NODE}---\n{SERVICE}---\na: [\n"),
        Format::Yaml,
        &Selector::default(),
        &old.clean,
    );
    // The first document of a file has no marker, so these two texts differ from the old ones: read again.
    assert_eq!(names(&new).len(), 2);
    let moved = read(
        "f.yaml",
        &format!("{SERVICE}---\n{NODE}---\n{SERVICE}"),
        Format::Yaml,
        &Selector::default(),
        &old.clean,
    );
    for i in [0, 1] {
        assert!(Arc::ptr_eq(&moved.objects[i].1.1, &old.objects[i].1.1), "{i}");
    }
    assert_eq!(names(&moved)[2], (11, "Service default/web".to_owned()));
}

#[test]
fn yaml_aliases_are_bounded() {
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for i in 1..12 {
        let refs = vec![format!("*a{}", i - 1); 10].join(", ");
        bomb.push_str(&format!("a{i}: &a{i} [{refs}]\n"));
    }
    assert!(yaml(&bomb).incomplete);
    let deep = "[".repeat(100_000);
    assert!(yaml(&deep).incomplete && json(&deep).incomplete);
}

#[test]
fn many_documents_keep_their_order() {
    let nodes: Vec<_> =
        (0..1000).map(|i| format!("{{apiVersion: v1, kind: Node, metadata: {{name: n{i}}}}}\n")).collect();
    let contents = yaml(&nodes.join("---\n"));
    let expected: Vec<_> = (0..1000).map(|i| (2 * i + 1, format!("Node n{i}"))).collect();
    assert_eq!(names(&contents), expected);
    let list = format!(
        "apiVersion: v1\nkind: List\nitems:\n{}",
        nodes.iter().map(|n| format!("- {n}")).collect::<String>()
    );
    assert_eq!(yaml(&list).objects.len(), 1000);
}

proptest! {
    #[test]
    fn any_text_is_read_without_panic(text in "\\PC{0,200}") {
        yaml(&text);
        json(&text);
    }

    #[test]
    fn any_damage_is_read_without_panic(
        cut in 0..2000usize,
        at in 0..2000usize,
        bytes in proptest::collection::vec(any::<u8>(), 0..8),
    ) {
        let mut text = format!("{SERVICE}---\n{NODE}---\n{FULL}").into_bytes();
        text.truncate(cut.max(1));
        let at = at % text.len();
        let end = (at + bytes.len()).min(text.len());
        text.splice(at..end, bytes);
        let text = String::from_utf8_lossy(&text);
        let contents = yaml(&text);
        for (_, ((kind, name), _)) in &contents.objects {
            prop_assert!(!name.name.is_empty());
            prop_assert_eq!(name.namespace.is_empty(), !kind.is_namespaced());
        }
        json(&text);
    }

    #[test]
    fn any_field_values_are_converted_without_panic(
        (strings, numbers) in (proptest::collection::vec("\\PC{0,20}", 9), proptest::collection::vec(any::<i32>(), 4)),
    ) {
        let q = |i: usize| serde_json::to_string(&strings[i]).expect("JSON");
        let service = format!(
            r#"{{"apiVersion":"v1","kind":"Service","metadata":{{"name":"a","namespace":"b"}},"spec":{{"clusterIP":{},
            "clusterIPs":[{}],"externalIPs":[{}],"loadBalancerSourceRanges":[{}],"ports":[{{"port":{},"nodePort":{}}}]}},
            "status":{{"loadBalancer":{{"ingress":[{{"ip":{}}}]}}}}}}"#,
            q(0), q(1), q(2), q(3), numbers[0], numbers[1], q(4)
        );
        let slice = format!(
            r#"{{"apiVersion":"discovery.k8s.io/v1","kind":"EndpointSlice","metadata":{{"name":"a",
            "labels":{{"kubernetes.io/service-name":{}}}}},"addressType":"IPv4","endpoints":[{{"addresses":[{}]}}],
            "ports":[{{"name":{},"port":{}}}]}}"#,
            q(5), q(6), q(7), numbers[2]
        );
        for text in [service, slice] {
            let key = |c: &Contents| c.objects.first().map(|(_, (key, _))| key.clone());
            prop_assert_eq!(key(&json(&text)), key(&yaml(&text)));
            prop_assert_eq!(key(&json(&text)).map(|(_, name)| name.name), Some(ObjectName::new("", "a").name));
        }
    }
}

/// All that is read of a slice, to be damaged.
const FULL: &str = r#"apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata:
  name: web-1
  labels:
    kubernetes.io/service-name: web
addressType: IPv6
ports:
- {name: http, port: 8080, protocol: TCP}
endpoints:
- addresses: ["fd00:1::1"]
  conditions: {ready: true, serving: true, terminating: false}
  nodeName: n1
  hints:
    forZones: [{name: z1}]
---
apiVersion: v1
kind: List
items:
- apiVersion: v1
  kind: Service
  metadata: {name: api, namespace: shop}
  spec:
    type: LoadBalancer
    clusterIP: fd00:96::1
    externalIPs: ["2001:db8::1"]
    ports:
    - {name: https, port: 443, nodePort: 30443}
  status:
    loadBalancer:
      ingress:
      - ip: 2001:db8::2
"#;
