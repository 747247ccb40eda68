//! A well-behaved callback that shows all it sees and makes each kind of wish: the test has the same one natively.

use trainer_sdk::{Ctx, Result};

/// Emits what the context shows at an event, and asks for something that depends on how often the event came.
pub fn record(ctx: &Ctx<'_>, event: &str, count: u64, numbers: &[(String, f64)]) -> Result<()> {
    let progress = ctx.progress();
    ctx.emit(&format!("{event}/count"), count as f64)?;
    ctx.emit(&format!("{event}/step"), progress.global_step as f64)?;
    ctx.emit(&format!("{event}/max"), progress.max_steps as f64)?;
    ctx.emit(&format!("{event}/epoch"), progress.epoch)?;
    ctx.emit(&format!("{event}/micro"), progress.micro_step as f64)?;
    ctx.emit(&format!("{event}/rates"), ctx.learning_rates().iter().sum())?;
    ctx.emit(
        &format!("{event}/norm"),
        ctx.gradient_norm().unwrap_or(-1.0),
    )?;
    ctx.emit(&format!("{event}/best"), ctx.best_metric().unwrap_or(-1.0))?;
    ctx.emit(&format!("{event}/loss"), ctx.metric("loss").unwrap_or(-1.0))?;
    for (name, value) in numbers {
        ctx.emit(&format!("{event}/{name}"), *value)?;
    }
    let flags = [ctx.is_stopping(), ctx.saves(), ctx.evaluates(), ctx.logs()];
    let bits = flags
        .iter()
        .fold(0, |bits, flag| bits * 2 + u32::from(*flag));
    ctx.emit(&format!("{event}/flags"), f64::from(bits))?;
    match count % 5 {
        1 => ctx.set_save(true),
        2 => ctx.set_evaluate(true),
        3 => ctx.set_log(!ctx.logs()),
        4 => ctx.stop_epoch(event),
        _ => ctx.stop_training(event),
    }
}
