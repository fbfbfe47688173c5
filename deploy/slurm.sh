#!/bin/bash
# A Ray cluster inside a SLURM allocation, and a batch of customizations (or a benchmark) on it.
#
#   sbatch --nodes=4 --gpus-per-node=8 deploy/slurm.sh batch plan.toml --out /cluster/results
#   sbatch --nodes=2 deploy/slurm.sh bench run --out /cluster/bench --pairs 12
#
# The package must be installed on every node, and --out lie where all of them see it. The same
# command submitted again goes on where the last one was stopped.
#SBATCH --job-name=customvideo
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --signal=B:TERM@120
set -euo pipefail

nodes=($(scontrol show hostnames "$SLURM_JOB_NODELIST"))
port=$((20000 + SLURM_JOB_ID % 20000))
head=${nodes[0]}
address=$(srun --nodes=1 --ntasks=1 -w "$head" hostname --ip-address | awk '{print $1}'):$port
export RAY_USAGE_STATS_ENABLED=0

srun --nodes=1 --ntasks=1 -w "$head" \
  ray start --head --port="$port" --num-cpus="$SLURM_CPUS_PER_TASK" --include-dashboard=false --block &
sleep 10
for node in "${nodes[@]:1}"; do
  srun --nodes=1 --ntasks=1 -w "$node" \
    ray start --address="$address" --num-cpus="$SLURM_CPUS_PER_TASK" --block &
done
sleep 10

# SLURM's warning before the end of the allocation stops the run, which says how it goes on.
customvideo "$@" --ray "$address" &
run=$!
trap 'kill -INT $run' TERM INT
wait $run || wait $run
