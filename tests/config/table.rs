//! The argument table against the reference: names, numbers and defaults of `TrainingArguments` 4.34.0.

use std::collections::BTreeMap;

use host::config::arguments::{Arguments, FIELDS};
use host::config::field::{Origin, State};
use serde_json::{Value, json};

/// The listed fields in order with their defaults. `output_dir` has none.
fn listed() -> Vec<(&'static str, Value)> {
    vec![
        ("output_dir", Value::Null),
        ("overwrite_output_dir", json!(false)),
        ("do_train", json!(false)),
        ("do_eval", json!(false)),
        ("do_predict", json!(false)),
        ("evaluation_strategy", json!("no")),
        ("prediction_loss_only", json!(false)),
        ("per_device_train_batch_size", json!(8)),
        ("per_device_eval_batch_size", json!(8)),
        ("gradient_accumulation_steps", json!(1)),
        ("eval_accumulation_steps", Value::Null),
        ("eval_delay", json!(0)),
        ("learning_rate", json!(5e-5)),
        ("weight_decay", json!(0.0)),
        ("adam_beta1", json!(0.9)),
        ("adam_beta2", json!(0.999)),
        ("adam_epsilon", json!(1e-8)),
        ("max_grad_norm", json!(1.0)),
        ("num_train_epochs", json!(3.0)),
        ("max_steps", json!(-1)),
        ("lr_scheduler_type", json!("linear")),
        ("warmup_ratio", json!(0.0)),
        ("warmup_steps", json!(0)),
        ("log_level", json!("passive")),
        ("log_level_replica", json!("warning")),
        ("log_on_each_node", json!(true)),
        ("logging_dir", Value::Null),
        ("logging_strategy", json!("steps")),
        ("logging_steps", json!(500)),
        ("logging_nan_inf_filter", json!(true)),
        ("save_strategy", json!("steps")),
        ("save_steps", json!(500)),
        ("save_total_limit", Value::Null),
        ("load_best_model_at_end", json!(false)),
        ("save_safetensors", json!(false)),
        ("save_on_each_node", json!(false)),
        ("use_cpu", json!(false)),
        ("seed", json!(42)),
        ("data_seed", Value::Null),
        ("jit_mode_eval", json!(false)),
        ("use_ipex", json!(false)),
        ("bf16", json!(false)),
        ("fp16", json!(false)),
        ("fp16_opt_level", json!("O1")),
        ("half_precision_backend", json!("auto")),
        ("bf16_full_eval", json!(false)),
        ("fp16_full_eval", json!(false)),
        ("tf32", Value::Null),
        ("local_rank", json!(-1)),
        ("ddp_backend", Value::Null),
        ("tpu_num_cores", Value::Null),
        ("dataloader_drop_last", json!(false)),
        ("eval_steps", Value::Null),
        ("dataloader_num_workers", json!(0)),
        ("past_index", json!(-1)),
        ("run_name", Value::Null),
        ("disable_tqdm", Value::Null),
        ("remove_unused_columns", json!(true)),
        ("label_names", Value::Null),
        ("metric_for_best_model", Value::Null),
        ("greater_is_better", Value::Null),
        ("ignore_data_skip", json!(false)),
        ("resume_from_checkpoint", Value::Null),
        ("sharded_ddp", json!("")),
        ("fsdp", json!("")),
        ("fsdp_config", Value::Null),
        ("deepspeed", Value::Null),
        ("label_smoothing_factor", json!(0.0)),
        ("debug", json!("")),
        ("optim", json!("adamw_torch")),
        ("optim_args", Value::Null),
        ("group_by_length", json!(false)),
        ("length_column_name", json!("length")),
        ("report_to", Value::Null),
        ("ddp_find_unused_parameters", Value::Null),
        ("ddp_bucket_cap_mb", Value::Null),
        ("ddp_broadcast_buffers", Value::Null),
        ("gradient_checkpointing", json!(false)),
        ("dataloader_pin_memory", json!(true)),
        ("skip_memory_metrics", json!(true)),
        ("include_inputs_for_metrics", json!(false)),
        ("auto_find_batch_size", json!(false)),
        ("full_determinism", json!(false)),
        ("torchdynamo", Value::Null),
        ("ray_scope", json!("last")),
        ("ddp_timeout", json!(1800)),
        ("torch_compile", json!(false)),
        ("torch_compile_backend", Value::Null),
        ("torch_compile_mode", Value::Null),
        ("include_tokens_per_second", json!(false)),
        ("push_to_hub", json!(false)),
        ("hub_model_id", Value::Null),
        ("hub_strategy", json!("every_save")),
        ("hub_token", Value::Null),
        ("hub_private_repo", json!(false)),
        ("hub_always_push", json!(false)),
    ]
}

/// The remaining fields of 4.34.0: those that the list leaves out, and the deprecated ones.
fn further() -> Vec<(&'static str, Value)> {
    vec![
        ("adafactor", json!(false)),
        ("dispatch_batches", Value::Null),
        ("fp16_backend", json!("auto")),
        ("fsdp_min_num_params", json!(0)),
        ("fsdp_transformer_layer_cls_to_wrap", Value::Null),
        ("logging_first_step", json!(false)),
        ("mp_parameters", json!("")),
        ("no_cuda", json!(false)),
        ("per_gpu_eval_batch_size", Value::Null),
        ("per_gpu_train_batch_size", Value::Null),
        ("push_to_hub_model_id", Value::Null),
        ("push_to_hub_organization", Value::Null),
        ("push_to_hub_token", Value::Null),
        ("tpu_metrics_debug", json!(false)),
        ("use_legacy_prediction_loop", json!(false)),
        ("use_mps_device", json!(false)),
    ]
}

#[test]
fn all_listed_fields_are_there_with_their_defaults() {
    let defaults = Arguments::default();
    let ours: BTreeMap<u8, (&str, Value)> = FIELDS
        .iter()
        .filter_map(|field| match field.facts.origin {
            Origin::Listed(number) => Some((number, (field.name, field.show(&defaults)))),
            Origin::Further | Origin::Host => None,
        })
        .collect();
    let reference: BTreeMap<u8, (&str, Value)> = (1..).zip(listed()).collect();
    assert_eq!(reference.len(), 96);
    assert_eq!(ours, reference);
}

#[test]
fn the_further_fields_are_there_with_their_defaults() {
    let defaults = Arguments::default();
    let ours = FIELDS
        .iter()
        .filter(|field| field.facts.origin == Origin::Further);
    let ours: BTreeMap<&str, Value> = ours
        .map(|field| (field.name, field.show(&defaults)))
        .collect();
    assert_eq!(ours, further().into_iter().collect());
}

#[test]
fn every_argument_has_help_a_state_and_reads_what_it_shows() {
    let defaults = Arguments::default();
    for field in FIELDS {
        let help = field.help();
        assert!(
            help.len() > 8 && help.ends_with('.'),
            "{}: {help}",
            field.name
        );
        if let State::Deferred(reason) | State::Refused(reason) = field.facts.state {
            assert!(
                reason.len() > 8 && !reason.ends_with('.'),
                "{}: {reason}",
                field.name
            );
        }
        let default = field.show(&defaults);
        if let (Some(name), false) = (default.as_str(), field.facts.choices.is_empty()) {
            let choice = field
                .facts
                .choices
                .iter()
                .find(|choice| choice.name == name);
            assert_eq!(
                choice.map(|choice| choice.state),
                Some(State::Honoured),
                "default of {}",
                field.name
            );
        }
        let mut arguments = defaults.clone();
        let text = default
            .as_str()
            .map_or_else(|| default.to_string(), str::to_owned);
        let tokens = match &default {
            Value::Array(_) => Vec::new(),
            _ => vec![host::config::setting::Token::Word(text)],
        };
        let written = host::config::setting::Written {
            tokens: &tokens,
            folder: None,
        };
        // A required path has no default that could be written.
        assert!(
            field.read(&mut arguments, written),
            "{} does not read its default {default}",
            field.name
        );
        if field.name != "resume_from_checkpoint" {
            assert_eq!(field.show(&arguments), default, "{}", field.name);
        }
    }
}
