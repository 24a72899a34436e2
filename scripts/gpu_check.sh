#!/usr/bin/env bash
# Everything to try on one H100 or H200, in one run of at most eight minutes: bash scripts/gpu_check.sh [FOLDER].
# THIS WAS NEVER RUN ON A GPU. Every command line in it runs on a CPU: DEVICE=cpu bash scripts/gpu_check.sh.
#
# To carry to a machine without network: this repository, and an environment with `pip install -e ".[train]"` (the CUDA build of
# torch; a .venv/ at the root, or PYTHON=...). With flash-attn in it, flash_attention_2 is tried too; without, the report says so.
# No checkpoint, no data set, no vLLM. On disk 8 GB for OUT, which is FOLDER/gpu-check (default of FOLDER: outputs).
#
# What runs, and what OUT/report.txt then says of it:
#   attention    gradients of masked attention, with and without cuDNN's kernel
#   nano         50 steps of RL: steps that the guard left out, for which the attention switch is meant to leave no reason
#   sft-*, rl-*  the configurations of 7B and 3B on two layers of their shapes, in bf16, with sdpa and flash_attention_2:
#                seconds a step, and peak memory beside the estimate of the dry run
#   local-*      the engine on all layers of the 7B's shapes, two images in each conversation, with sdpa and flash_attention_2: tokens
#                equal to stock generate, memory, time of a token
# By reckoning seven minutes: half a minute of inputs, eight trainings of 40 s with their dry runs, two of the engine of 45 s.
# What fails or takes too long is in the report as well, and stops nothing else. OUT/NAME.log holds all that was printed.
set -uo pipefail
cd "$(dirname "$0")/.."
case ${1:-} in
  -*)
    sed -n '1d; /^set /q; s/^# \{0,1\}//p' scripts/gpu_check.sh # what stands above
    exit 2
    ;;
esac
PYTHON=${PYTHON:-.venv/bin/python}
DEVICE=${DEVICE:-cuda}
OUT=${1:-outputs}/gpu-check # all in it is made anew
export HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false
mkdir -p "$OUT"
rm -f "$OUT"/*.log "$OUT"/*.code "$OUT"/*.json

slack=1
if [ "$DEVICE" = cpu ]; then
  slack=5
  inputs=(--shapes 3b --layers 1 --samples 4 --small)
  shapes=(3b)
  images=(--max_pixels 25088)
  views=(--overview_pixels 12544 --zoom_pixels 3136 --max_tokens 8 --max_completion_length 96)
  few=(--use_cpu true --max_steps 2)
  nano=(--use_cpu true --max_steps 2 --per_device_train_batch_size 4 --gradient_accumulation_steps 1 --num_generations 2)
  local=(--shapes 3b --layers 1 --images 1 --tokens 64 --conversations 1 2 --steps 2 --dtype float32)
else
  inputs=(--shapes 3b 7b --layers 2 --samples 64)
  shapes=(3b 7b)
  images=()
  views=(--overview_pixels 1003520 --zoom_pixels 250880 --max_tokens 64 --max_completion_length 2048)
  few=(--use_cpu false --max_steps 4)
  nano=(--use_cpu false --bf16 true --max_steps 50 --per_device_train_batch_size 32 --gradient_accumulation_steps 1 --num_generations 8)
  local=(--shapes 7b --images 2 --tokens 5000 --conversations 1 8 32 --steps 16)
fi

# run NAME SECONDS COMMAND...: the output goes to OUT/NAME.log, the exit code to OUT/NAME.code; 124 is too long.
run() {
  local name=$1 limit=$2
  shift 2
  echo "$name ..." >&2
  timeout "$((limit * slack))" "$@" > "$OUT/$name.log" 2>&1 < /dev/null
  echo $? > "$OUT/$name.code"
}

# keep NAME: the log of a training's figures becomes OUT/NAME.json.
keep() {
  [ ! -f "$OUT/$1/trainer_state.json" ] || mv "$OUT/$1/trainer_state.json" "$OUT/$1.json"
}

# trained NAME COMMAND...: what the dry run estimates, then the run itself.
trained() {
  local name=$1
  shift
  run "$name-plan" 60 "$@" --dry_run true --output_dir "$OUT/$name"
  rm -rf "${OUT:?}/$name"
  run "$name" 90 "$@" --skip_memory_metrics false --logging_steps 1 --output_dir "$OUT/$name"
  keep "$name"
  rm -rf "${OUT:?}/$name"
}

run inputs 120 "$PYTHON" scripts/gpu_inputs.py "$OUT/inputs" "${inputs[@]}"
run attention 60 "$PYTHON" scripts/gpu_attention.py
rm -rf "${OUT:?}/nano"
run nano 240 "$PYTHON" -m rl.train --config rl/configs/nano.yaml --data "$OUT/inputs/scenes" "${nano[@]}" \
  --save_strategy no --output_dir "$OUT/nano" &

kernels=(sdpa)
if [ "$DEVICE" = cpu ]; then :; elif "$PYTHON" -c 'import flash_attn' 2> /dev/null; then
  kernels+=(flash_attention_2)
else
  echo "flash-attn is not installed: flash_attention_2 was not tried." > "$OUT/flash.log"
fi
for shape in "${shapes[@]}"; do
  sft=sft/configs/qwen2.5-vl-7b-lora.yaml
  rl=rl/configs/qwen2.5-vl-7b-8gpu.yaml
  if [ "$shape" = 3b ]; then
    sft=sft/configs/qwen2.5-vl-3b-lora-1gpu.yaml
    rl=rl/configs/qwen2.5-vl-3b-lora-1gpu.yaml
  fi
  for kernel in "${kernels[@]}"; do
    common=(--model_name_or_path "$OUT/inputs/$shape" --data "$OUT/inputs/scenes" --deepspeed "" --attn_implementation "$kernel"
      --save_strategy no "${few[@]}")
    trained "sft-$shape-$kernel" "$PYTHON" -m sft.train --config "$sft" "${common[@]}" "${images[@]}" \
      --per_device_train_batch_size 2 --gradient_accumulation_steps 1 --dataloader_num_workers 0
    # Random weights earn no reward; the entropy is there so that something is learned.
    trained "rl-$shape-$kernel" "$PYTHON" -m rl.train --config "$rl" "${common[@]}" "${views[@]}" \
      --use_vllm false --vllm_enable_sleep_mode false --entropy_coef 0.01 \
      --per_device_train_batch_size 4 --gradient_accumulation_steps 1 --num_generations 2
  done
done
wait
keep nano
for kernel in "${kernels[@]}"; do
  run "local-$kernel" 90 "$PYTHON" scripts/bench.py local "${local[@]}" --attn "$kernel"
done
"$PYTHON" scripts/gpu_report.py "$OUT" | tee "$OUT/report.txt"
