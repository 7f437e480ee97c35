use super::*;

#[test]
fn a_name_that_does_not_exist_is_an_error() {
    let named = ["eth7".to_owned()];
    let error = Interfaces::new(
        &named,
        XdpChoice::Auto,
        (FastPath::default(), true),
        DetectLocal::default(),
        &Snapshot::default(),
    )
    .unwrap_err();
    assert_eq!(error.to_string(), "there is no interface eth7");
}
