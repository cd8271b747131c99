//! AMF0: round trips, and the inputs that brought other readers down.

use proptest::prelude::*;

use super::*;

fn encoded(value: &Value) -> BytesMut {
    let mut out = BytesMut::new();
    encode(&mut out, value);
    out
}

fn any_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        any::<f64>().prop_filter("NaN equals nothing", |n| !n.is_nan()).prop_map(Value::Number),
        any::<bool>().prop_map(Value::Boolean),
        "\\PC{0,40}".prop_map(Value::String),
        Just(Value::Null),
        Just(Value::Undefined),
        Just(Value::Unsupported),
        any::<u16>().prop_map(Value::Reference),
        (any::<i32>(), any::<i16>()).prop_map(|(t, zone)| Value::Date { millis: t.into(), zone }),
        "\\PC{0,40}".prop_map(Value::Xml),
    ];
    leaf.prop_recursive(4, 40, 6, |inner| {
        let members = || prop::collection::vec(("[a-z]{1,8}", inner.clone()), 0..6);
        prop_oneof![
            members().prop_map(Value::Object),
            members().prop_map(Value::EcmaArray),
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::StrictArray),
            ("[a-z]{0,8}", members())
                .prop_map(|(class, properties)| Value::TypedObject { class, properties }),
        ]
    })
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(value in any_value()) {
        let out = encoded(&value);
        let mut reader = Reader::new(&out);
        prop_assert_eq!(reader.value().unwrap(), Some(value));
        prop_assert_eq!(reader.position(), out.len());
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = decode(&bytes);
    }

    #[test]
    fn cut_values_are_refused(value in any_value(), cut in any::<prop::sample::Index>()) {
        let out = encoded(&value);
        let short = &out[..cut.index(out.len())];
        prop_assume!(!short.is_empty());
        // An ECMA array may end without its end marker, also as the last value of another one.
        prop_assume!(!format!("{value:?}").contains("EcmaArray"));
        prop_assert!(decode(short).is_err());
    }
}

#[test]
fn twenty_thousand_nested_arrays_are_refused_at_level_sixteen() {
    let nested = [0x0A, 0, 0, 0, 1].repeat(20_000);
    assert_eq!(decode(&nested), Err(AmfError::Depth { at: 17 * 5 }));
}

#[test]
fn sixteen_levels_are_read() {
    let mut nested = [0x0A, 0, 0, 0, 1].repeat(MAX_DEPTH);
    nested.push(0x05);
    assert_eq!(decode(&nested).unwrap().len(), 1);
}

#[test]
fn a_count_of_four_billion_allocates_nothing() {
    let strict = [0x0A, 0xFF, 0xFF, 0xFF, 0xFF];
    assert_eq!(decode(&strict), Err(AmfError::Short { at: 5, needed: 1, left: 0 }));
    let ecma = [0x08, 0xFF, 0xFF, 0xFF, 0xFF];
    assert_eq!(decode(&ecma), Err(AmfError::Short { at: 5, needed: 2, left: 0 }));
    let long = [0x0C, 0xFF, 0xFF, 0xFF, 0xFF, b'a'];
    assert_eq!(decode(&long), Err(AmfError::Short { at: 5, needed: 0xFFFF_FFFF, left: 1 }));
}

#[test]
fn a_message_of_null_markers_is_refused_before_it_grows() {
    let mut array = vec![0x0A, 0, 0x10, 0, 0];
    array.extend([0x05].repeat(1 << 20));
    assert_eq!(decode(&array), Err(AmfError::Values { at: 5 + MAX_VALUES - 1 }));
}

#[test]
fn dates_and_long_strings_are_known() {
    let mut out = encoded(&Value::Date { millis: 1000.0, zone: 0 });
    out.extend_from_slice(&[0x0C, 0, 0, 0, 2, b'h', b'i']);
    let values = decode(&out).unwrap();
    assert_eq!(values, [Value::Date { millis: 1000.0, zone: 0 }, Value::from("hi")]);
}

#[test]
fn a_string_above_64_kilobytes_goes_out_long() {
    let long = Value::String("x".repeat(70_000));
    let out = encoded(&long);
    assert_eq!(out[0], 0x0C);
    assert_eq!(decode(&out).unwrap(), [long]);
}

#[test]
fn a_switch_to_amf3_keeps_the_rest_unread() {
    let values = decode(&[0x05, 0x11, 0x0A, 0x0B, 0x01]).unwrap();
    assert_eq!(values, [Value::Null, Value::Amf3(Bytes::from_static(&[0x0A, 0x0B, 0x01]))]);
    assert_eq!(decode(&[0x0A, 0, 0, 0, 1, 0x11, 1]), Err(AmfError::Marker { at: 5, marker: 0x11 }));
}

#[test]
fn an_ecma_array_without_end_marker_is_let_pass_when_its_count_is_met() {
    let array = [0x08, 0, 0, 0, 1, 0, 1, b'w', 0x05];
    assert_eq!(decode(&array).unwrap(), [Value::EcmaArray(vec![("w".to_owned(), Value::Null)])]);
    assert_eq!(decode(&array[..8]), Err(AmfError::Short { at: 8, needed: 1, left: 0 }));
}

#[test]
fn reserved_markers_are_refused_with_their_place() {
    assert_eq!(decode(&[0x05, 0x04]), Err(AmfError::Marker { at: 1, marker: 0x04 }));
    assert_eq!(decode(&[0x05, 0x0E]), Err(AmfError::Marker { at: 1, marker: 0x0E }));
}
