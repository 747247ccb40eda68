//! Which test proves that an argument does what it says: for `host args --check`, which continuous integration runs, and
//! for a reader who wants to know. Names are `file::function`, the file below `tests` without its ending.

use super::arguments::FIELDS;
use super::field::{Field, Origin, State};

/// Fields of `TrainingArguments` 4.34.0 that the reference lists.
const NUM_LISTED: usize = 96;
/// Listed fields that may wait for training with several processes.
const MAY_WAIT: &[u8] = &[49, 50, 64, 65, 66, 67, 75, 76, 77, 85, 86];
/// Listed fields that may be refused for good.
const MAX_REFUSED: usize = 5;
/// Every argument that is refused is refused here.
const REFUSALS: &str = "cli/errors::every_refusal_has_its_message";

/// Test of each argument that is honoured.
#[rustfmt::skip]
const PROOFS: &[(&str, &str)] = &[
    ("model", "fidelity/golden::base"),
    ("model_revision", "hub/download::a_revision_is_the_one_that_was_asked_for"),
    ("trust_model_code", "cli/errors::code_needs_a_grant"),
    ("tokenizer_name", "arguments/data::the_tokenizer_may_lie_elsewhere"),
    ("task", "loop_behaviour/files::tags_are_predicted_for_every_word"),
    ("dtype", "arguments/data::parameters_have_the_type_that_was_asked_for"),
    ("train_file", "fidelity/golden::base"),
    ("validation_file", "fidelity/golden::base"),
    ("test_file", "loop_behaviour/files::predictions_by_kind_of_label"),
    ("text_column", "arguments/data::columns_are_found_by_name"),
    ("text_pair_column", "arguments/data::columns_are_found_by_name"),
    ("label_column", "arguments/data::columns_are_found_by_name"),
    ("streaming", "input/streaming::row_60_rows_come_in_file_order_and_again_when_they_end"),
    ("data_collator", "input/collators::packing_changes_no_number_of_an_evaluation"),
    ("mlm", "input/collators::masked_language_modeling_trains_as_recorded"),
    ("mlm_probability", "input/collators::masked_language_modeling_trains_as_recorded"),
    ("plm_probability", "../src/data/collator/language_model::permutations_are_the_references_draw_for_draw"),
    ("max_span_length", "../src/data/collator/language_model::permutations_are_the_references_draw_for_draw"),
    ("label_names", "arguments/data::label_names_say_what_labels_are"),
    ("max_length", "arguments/data::padding_changes_the_work_and_not_the_loss"),
    ("pad_to_max_length", "arguments/data::padding_changes_the_work_and_not_the_loss"),
    ("pad_to_multiple_of", "arguments/data::padding_changes_the_work_and_not_the_loss"),
    ("max_train_samples", "arguments/data::parts_of_the_files_can_be_used"),
    ("max_eval_samples", "arguments/data::parts_of_the_files_can_be_used"),
    ("max_predict_samples", "arguments/data::parts_of_the_files_can_be_used"),
    ("remove_unused_columns", "arguments/data::columns_that_the_model_does_not_take_are_dropped_unless_forbidden"),
    ("dataloader_drop_last", "arguments/data::the_last_incomplete_batch_is_left_out_if_asked"),
    ("dataloader_num_workers", "input/workers::a_run_with_workers_is_the_run_without"),
    ("dataloader_pin_memory", "arguments/data::page_locked_memory_is_of_no_consequence_on_a_cpu"),
    ("group_by_length", "fidelity/golden::gbl"),
    ("length_column_name", "arguments/data::rows_are_grouped_by_length"),
    ("data_seed", "arguments/data::the_data_have_a_seed_of_their_own_if_asked"),
    ("dispatch_batches", "arguments/logging::arguments_about_other_processes_change_nothing_in_one"),
    ("output_dir", "fidelity/golden::base"),
    ("overwrite_output_dir", "cli/errors::results_of_an_earlier_run_are_not_overwritten_unasked"),
    ("do_train", "config/resolve::published_arguments_are_those_in_effect_with_secrets_masked"),
    ("do_eval", "config/resolve::what_happens_after_training_follows_from_flags_and_files"),
    ("do_predict", "config/resolve::what_happens_after_training_follows_from_flags_and_files"),
    ("per_device_train_batch_size", "arguments/training::batches_steps_and_epochs_are_counted_as_asked"),
    ("gradient_accumulation_steps", "fidelity/golden::ga3"),
    ("num_train_epochs", "fidelity/golden::drop_ep2"),
    ("max_steps", "arguments/training::batches_steps_and_epochs_are_counted_as_asked"),
    ("max_grad_norm", "fidelity/golden::clip"),
    ("label_smoothing_factor", "arguments/training::labels_are_smoothed"),
    ("seed", "arguments/training::the_seed_decides_everything_that_is_drawn"),
    ("resume_from_checkpoint", "fidelity/regression::appendix_a_resumed"),
    ("ignore_data_skip", "arguments/training::data_can_be_begun_anew_on_resuming"),
    ("on_nonfinite", "bad_input/numbers::a_loss_that_is_not_finite_is_counted_otherwise"),
    ("gradient_checkpointing", "modes/numbers::recomputed_activations_change_no_bit"),
    ("auto_find_batch_size", "modes/memory::the_batch_size_is_halved_until_it_fits"),
    ("full_determinism", "modes/numbers::full_determinism_refuses_operations_that_have_none"),
    ("past_index", "input/memory::an_evaluation_remembers_the_batch_before"),
    ("debug", "modes/numbers::the_watch_ends_the_run_at_the_first_number_that_is_not_finite"),
    ("per_gpu_train_batch_size", "config/resolve::deprecated_arguments_take_effect_through_their_successors"),
    ("optim", "fidelity/golden::adafactor"),
    ("optim_args", "fidelity/optimizers::every_optimizer_ends_where_its_reference_does"),
    ("learning_rate", "arguments/optimizer::every_setting_of_the_optimizer_is_used"),
    ("weight_decay", "arguments/optimizer::every_setting_of_the_optimizer_is_used"),
    ("adam_beta1", "arguments/optimizer::every_setting_of_the_optimizer_is_used"),
    ("adam_beta2", "arguments/optimizer::every_setting_of_the_optimizer_is_used"),
    ("adam_epsilon", "arguments/optimizer::every_setting_of_the_optimizer_is_used"),
    ("lr_scheduler_type", "fidelity/golden::cosine_warmup"),
    ("lr_scheduler_kwargs", "fidelity/optimizers::schedules_take_their_settings_from_the_arguments"),
    ("warmup_ratio", "arguments/optimizer::rates_follow_the_schedule_and_its_warm_up"),
    ("warmup_steps", "arguments/optimizer::rates_follow_the_schedule_and_its_warm_up"),
    ("adafactor", "config/resolve::deprecated_arguments_take_effect_through_their_successors"),
    ("evaluation_strategy", "arguments/evaluation::evaluations_come_when_asked"),
    ("eval_steps", "arguments/evaluation::evaluations_come_when_asked"),
    ("eval_delay", "arguments/evaluation::evaluations_come_when_asked"),
    ("per_device_eval_batch_size", "arguments/evaluation::the_batches_of_an_evaluation_are_of_no_consequence"),
    ("eval_accumulation_steps", "arguments/evaluation::the_batches_of_an_evaluation_are_of_no_consequence"),
    ("prediction_loss_only", "loop_behaviour/files::only_the_loss"),
    ("load_best_model_at_end", "loop_behaviour/best::the_best_by_loss_is_loaded"),
    ("metric_for_best_model", "loop_behaviour/best::the_best_by_a_metric_is_loaded"),
    ("greater_is_better", "arguments/evaluation::early_stopping_and_the_best_model"),
    ("early_stopping_patience", "arguments/evaluation::early_stopping_and_the_best_model"),
    ("early_stopping_threshold", "arguments/evaluation::early_stopping_and_the_best_model"),
    ("include_inputs_for_metrics", "loop_behaviour/evaluation::row_57_metrics_see_the_main_input_only_if_asked"),
    ("jit_mode_eval", "input/frozen::a_frozen_module_evaluates_as_the_module_does_while_it_trains"),
    ("bf16_full_eval", "modes/numbers::full_evaluation_in_half_precision_is_outside_training"),
    ("fp16_full_eval", "cli/errors::half_precision_is_checked_as_a_whole"),
    ("per_gpu_eval_batch_size", "config/resolve::deprecated_arguments_take_effect_through_their_successors"),
    ("logging_strategy", "arguments/logging::entries_come_when_asked"),
    ("logging_steps", "arguments/logging::entries_come_when_asked"),
    ("logging_first_step", "arguments/logging::entries_come_when_asked"),
    ("logging_nan_inf_filter", "arguments/logging::the_filter_of_the_log"),
    ("logging_dir", "arguments/logging::names_and_folders_of_a_run_are_published"),
    ("log_level", "loop_behaviour/files::the_log_level_decides_what_is_told"),
    ("log_level_replica", "arguments/logging::arguments_about_other_processes_change_nothing_in_one"),
    ("log_on_each_node", "arguments/logging::arguments_about_other_processes_change_nothing_in_one"),
    ("report_to", "arguments/logging::names_and_folders_of_a_run_are_published"),
    ("run_name", "arguments/logging::names_and_folders_of_a_run_are_published"),
    ("disable_tqdm", "arguments/logging::plain_lines_are_what_there_is_without_a_terminal"),
    ("skip_memory_metrics", "modes/memory::memory_is_reported_if_asked_for"),
    ("include_tokens_per_second", "modes/memory::tokens_are_counted_as_planned"),
    ("record_steps", "arguments/training::batches_steps_and_epochs_are_counted_as_asked"),
    ("save_strategy", "arguments/checkpoints::checkpoints_come_when_asked_and_go_beyond_the_limit"),
    ("save_steps", "arguments/checkpoints::checkpoints_come_when_asked_and_go_beyond_the_limit"),
    ("save_total_limit", "arguments/checkpoints::checkpoints_come_when_asked_and_go_beyond_the_limit"),
    ("save_safetensors", "arguments/checkpoints::weights_are_safetensors_whatever_is_said"),
    ("save_on_each_node", "arguments/logging::arguments_about_other_processes_change_nothing_in_one"),
    ("on_disk_full", "resume/storage::a_full_disk_stops_training_if_asked_to"),
    ("plugin", "loop_behaviour/files::a_plugin_replaces_the_built_in_metric"),
    ("plugin_config", "bad_input/plugins::a_configuration_that_does_not_fit_is_refused"),
    ("plugin_limit", "plugin/limits::a_limit_is_told_with_the_setting_that_raises_it"),
    ("plugin_grant", "bad_input/capabilities::a_missing_grant_stops_the_run_before_it_starts"),
    ("no_plugins", "config/resolve::plugins_of_file_and_command_line_are_joined"),
    ("use_cpu", "fidelity/golden::base"),
    ("no_cuda", "config/resolve::deprecated_arguments_take_effect_through_their_successors"),
    ("bf16", "fidelity/golden::bf16"),
    ("fp16", "loop_behaviour/precision::an_overflow_skips_optimizer_and_schedule_but_no_step"),
    ("fp16_opt_level", "cli/errors::half_precision_is_checked_as_a_whole"),
    ("half_precision_backend", "cli/errors::half_precision_is_checked_as_a_whole"),
    ("fp16_backend", "cli/errors::half_precision_is_checked_as_a_whole"),
    ("tf32", "cli/errors::half_precision_is_checked_as_a_whole"),
    ("num_threads", "cli/start::the_engine_gets_the_run_and_its_environment"),
    ("push_to_hub", "hub/upload::each_strategy_uploads_what_it_says"),
    ("hub_model_id", "hub/upload::each_strategy_uploads_what_it_says"),
    ("hub_strategy", "hub/upload::each_strategy_uploads_what_it_says"),
    ("hub_token", "hub/upload::deprecated_names_mean_the_same"),
    ("hub_private_repo", "hub/upload::a_new_repository_is_private_if_asked_and_belongs_to_who_has_the_token"),
    ("hub_always_push", "hub/upload::training_goes_on_while_an_upload_runs_and_leaves_the_next_one_out"),
    ("push_to_hub_model_id", "hub/upload::deprecated_names_mean_the_same"),
    ("push_to_hub_organization", "hub/upload::deprecated_names_mean_the_same"),
    ("push_to_hub_token", "hub/upload::deprecated_names_mean_the_same"),
];

/// The test of an argument.
pub fn of(field: &Field) -> Option<&'static str> {
    match field.facts.state {
        State::Honoured => PROOFS
            .iter()
            .find(|(name, _)| *name == field.name)
            .map(|(_, test)| *test),
        State::Deferred(_) | State::Refused(_) => Some(REFUSALS),
    }
}

/// What is still missing from the promise that every argument does what it says or is refused for good reason.
pub fn gaps() -> Vec<String> {
    let mut gaps = Vec::new();
    let listed: Vec<(u8, &Field)> = FIELDS
        .iter()
        .filter_map(|field| match field.facts.origin {
            Origin::Listed(number) => Some((number, field)),
            Origin::Further | Origin::Host => None,
        })
        .collect();
    if listed.len() != NUM_LISTED {
        gaps.push(format!(
            "{} fields are listed, not {NUM_LISTED}",
            listed.len()
        ));
    }
    for field in FIELDS.iter().filter(|field| of(field).is_none()) {
        gaps.push(format!("{} has no test", field.name));
    }
    for (name, _) in PROOFS {
        let is_known = |field: &&Field| field.name == *name && field.facts.state == State::Honoured;
        if !FIELDS.iter().any(|field| is_known(&field)) {
            gaps.push(format!(
                "{name} has a test, but is no argument that is honoured"
            ));
        }
    }
    for (number, field) in &listed {
        if let State::Deferred(missing) = field.facts.state
            && !MAY_WAIT.contains(number)
        {
            gaps.push(format!("{} waits for {missing}", field.name));
        }
    }
    let is_refused = |(_, field): &&(u8, &Field)| matches!(field.facts.state, State::Refused(_));
    let refused = listed.iter().filter(is_refused).count();
    if refused > MAX_REFUSED {
        gaps.push(format!(
            "{refused} fields are refused for good; at most {MAX_REFUSED} may be"
        ));
    }
    gaps
}
