//! Which device a run is on. The small executable knows only whether there can be a GPU; here libtorch says whether it can
//! use one, and what the run asks of it is checked.

use anyhow::Result;

use crate::cli::output;
use crate::config::run::{Device, Half, Precision, Run};
use crate::error::Failure;
use crate::torch;

/// The first compute capability with bfloat16 and TF32.
const AMPERE: i32 = 80;

/// The run with a device that there is. Says so where a GPU cannot be used.
pub(crate) fn settled(run: &Run) -> Result<Run> {
    let device = match run.device {
        Device::GpuIfUsable { local_rank } => match usable_gpus() {
            Ok(count) => Device::Gpu {
                index: index(count, local_rank)?,
            },
            Err(reason) => {
                output::note(&format!("running on the CPU: {reason}"));
                Device::Cpu
            }
        },
        decided => decided,
    };
    let mut run = Run {
        device,
        ..run.clone()
    };
    match device {
        Device::Gpu { index } => check_gpu(&mut run, torch::cuda_capability(index)?)?,
        _ => check_cpu(&run.precision)?,
    }
    Ok(run)
}

/// Where the tensors of a settled run live.
pub(crate) fn of(run: &Run) -> tch::Device {
    match run.device {
        Device::Gpu { index } => tch::Device::Cuda(index),
        Device::Cpu | Device::GpuIfUsable { .. } => tch::Device::Cpu,
    }
}

/// How many GPUs libtorch can use, or why none.
fn usable_gpus() -> Result<usize, String> {
    match torch::load_cuda() {
        Ok(true) => {}
        Ok(false) => return Err("this libtorch is built for the CPU alone".to_owned()),
        Err(error) => {
            return Err(format!(
                "the GPU part of libtorch cannot be loaded: {error}"
            ));
        }
    }
    match usize::try_from(tch::Cuda::device_count()) {
        Ok(count) if count > 0 && tch::Cuda::is_available() => Ok(count),
        _ => Err("libtorch finds no GPU that it can use".to_owned()),
    }
}

/// The GPU of this process, of which it uses one.
fn index(count: usize, local_rank: Option<usize>) -> Result<usize> {
    match local_rank {
        Some(rank) if rank < count => Ok(rank),
        Some(rank) => {
            let message = format!("this is process {rank} of its machine, which has {count} GPUs");
            let hint = "start as many processes as there are GPUs";
            Err(Failure::usage(message).hint(hint).into())
        }
        None if count == 1 => Ok(0),
        None => {
            let message = format!("{count} GPUs are visible, and one process uses one of them");
            let hint = "use them all with `host launch`, or one with CUDA_VISIBLE_DEVICES=0";
            Err(Failure::usage(message).hint(hint).into())
        }
    }
}

/// As `resolve` refuses it where there is no driver.
fn check_cpu(precision: &Precision) -> Result<()> {
    let float16 = [
        precision.autocast,
        precision.model,
        precision.full_evaluation,
    ];
    let (what, instead) = if float16.contains(&Some(Half::Float16)) {
        ("float16", "use bf16 or bf16_full_eval")
    } else if precision.tf32 == Some(true) {
        ("TF32", "leave tf32 out")
    } else {
        return Ok(());
    };
    let message = format!("{what} can only be used on a GPU, and this run is on the CPU");
    Err(Failure::usage(message).hint(instead).into())
}

/// As the reference refuses it on GPUs that are too old; compiling lets them use TF32 (field 87).
fn check_gpu(run: &mut Run, capability: i32) -> Result<()> {
    let bfloat16 = [
        ("bf16", run.precision.autocast),
        ("bf16_full_eval", run.precision.full_evaluation),
    ];
    let bfloat16 = bfloat16.map(|(name, half)| (name, half == Some(Half::Bfloat16)));
    let needs = bfloat16
        .into_iter()
        .chain([("tf32", run.precision.tf32 == Some(true))]);
    for (name, is_given) in needs {
        if is_given && capability < AMPERE {
            let message = format!(
                "{name} needs a GPU of compute capability 8.0, and this one has {}.{}",
                capability / 10,
                capability % 10
            );
            return Err(Failure::usage(message)
                .hint(format!("leave {name} out"))
                .into());
        }
    }
    let is_fp16 = run.precision.scales_losses || run.precision.model.is_some();
    let is_bf16 = run.precision.autocast == Some(Half::Bfloat16);
    let is_open = run.precision.tf32.is_none() && !is_fp16;
    if run.model.compilation.is_some() && capability >= AMPERE && (is_open || is_bf16) {
        run.precision.tf32 = Some(true);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_uses_one_gpu() {
        for (count, rank, expected) in [
            (1, None, Some(0)),
            (4, Some(3), Some(3)),
            (4, Some(4), None),
            (2, None, None),
        ] {
            assert_eq!(index(count, rank).ok(), expected, "{count} {rank:?}");
        }
        let error = index(2, None).expect_err("which one is not said");
        assert!(error.to_string().contains("2 GPUs are visible"), "{error}");
    }

    /// Where a GPU turns out not to be usable, what needs one is refused as in the resolution of arguments.
    #[test]
    fn what_needs_a_gpu_is_refused_without_one() {
        let plain = Precision {
            autocast: None,
            model: None,
            master_weights: false,
            scales_losses: false,
            full_evaluation: None,
            tf32: Some(false),
        };
        assert!(check_cpu(&plain).is_ok());
        let bfloat16 = Precision {
            autocast: Some(Half::Bfloat16),
            ..plain
        };
        assert!(check_cpu(&bfloat16).is_ok());
        for wrong in [
            Precision {
                autocast: Some(Half::Float16),
                ..plain
            },
            Precision {
                model: Some(Half::Float16),
                ..plain
            },
            Precision {
                full_evaluation: Some(Half::Float16),
                ..plain
            },
            Precision {
                tf32: Some(true),
                ..plain
            },
        ] {
            let error = check_cpu(&wrong).expect_err("it needs a GPU");
            assert!(
                error.to_string().contains("can only be used on a GPU"),
                "{error}"
            );
        }
    }
}
