"""What workers wrote to their logs: on gloo and torch 2.13 taken from real runs, on NCCL after public reports; shortened."""

BARRIER = """\
[rank0]: Traceback (most recent call last):
[rank0]:   File "train.py", line 49, in <module>
[rank0]:     main()
[rank0]:   File "torch/distributed/c10d_logger.py", line 83, in wrapper
[rank0]:     return func(*args, **kwargs)
[rank0]:            ^^^^^^^^^^^^^^^^^^^^^
[rank0]:   File "torch/distributed/distributed_c10d.py", line 5356, in barrier
[rank0]:     work.wait()
"""
GLOO = "RuntimeError: [/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc"
PEER_CLOSED = f"""{BARRIER}[rank0]: {GLOO}:553] Connection closed by peer [127.0.0.1]:7330. This is \
typically caused by a remote worker crashing. Check the logs of the remote worker before reporting an error.
"""
PEER_RESET = f"""{BARRIER}[rank0]: {GLOO}:537] Read error [127.0.0.1]:5523: Connection reset by peer. \
This is typically caused by a remote worker hanging or bugs in the application.
"""
NCCL_REMOTE = """\
[rank3]: Traceback (most recent call last):
[rank3]:   File "torch/distributed/utils.py", line 281, in _verify_param_shape_across_processes
[rank3]:     return dist._verify_params_across_processes(process_group, tensors, logger)
[rank3]: torch.distributed.DistBackendError: NCCL error in: ProcessGroupNCCL.cpp:3763, internal error, NCCL version 2.28.8
[rank3]: ncclInternalError: Internal check failed.
[rank3]: Last error:
[rank3]: Net : Connection closed by remote peer node7<43236>
"""
STORE_TIMEOUT = """\
Traceback (most recent call last):
  File "torch/distributed/rendezvous.py", line 278, in _env_rendezvous_handler
    store = _create_c10d_store(
torch.distributed.DistStoreError: Timed out after 901 seconds waiting for clients. 1/3 clients joined.
"""
WRAPPED_PEER = f"""\
[rank0]: Traceback (most recent call last):
[rank0]:   File "train.py", line 12, in step
[rank0]:     loss.backward()
[rank0]: {GLOO}:553] Connection closed by peer [127.0.0.1]:7330. This is typically caused by a crash.

[rank0]: The above exception was the direct cause of the following exception:

[rank0]: Traceback (most recent call last):
[rank0]:   File "trainer.py", line 40, in fit
[rank0]:     raise TrainerError(f"step {{step}} failed") from error
[rank0]: trainer.TrainerError: step 7 failed
"""
VALUE_ERROR = """\
[rank1]: Traceback (most recent call last):
[rank1]:   File "train.py", line 15, in main
[rank1]:     raise ValueError("bad batch 7")
[rank1]: ValueError: bad batch 7
"""
STATE_DICT = """\
[rank1]: Traceback (most recent call last):
[rank1]:   File "train.py", line 19, in main
[rank1]:     model.load_state_dict(state)
[rank1]:   File "torch/nn/modules/module.py", line 2638, in load_state_dict
[rank1]:     raise RuntimeError(
[rank1]: RuntimeError: Error(s) in loading state_dict for Linear:
[rank1]: \tsize mismatch for weight: copying a param with shape torch.Size([4, 2]) from checkpoint.
[rank1]: \tsize mismatch for bias: copying a param with shape torch.Size([4]) from checkpoint.
[rank1]:[W1124 15:47:01.2 ProcessGroupGloo.cpp:75] Warning: destroy_process_group() was not called
"""
HOST_MEMORY = """\
[rank1]: Traceback (most recent call last):
[rank1]:   File "train.py", line 18, in main
[rank1]:     torch.empty(10**15)
[rank1]: RuntimeError: [enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate \
memory: you tried to allocate 4000000000000000 bytes. Error code 12 (Cannot allocate memory)
"""
DEVICE_MEMORY = """\
[rank1]: Traceback (most recent call last):
[rank1]:   File "train.py", line 18, in main
[rank1]:     loss.backward()
[rank1]: torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity \
of 79.15 GiB of which 1.12 GiB is free.
"""
DATA_LOADER = """\
[rank1]: Traceback (most recent call last):
[rank1]:   File "train.py", line 26, in main
[rank1]:     next(iter(loader))
[rank1]:   File "torch/_utils.py", line 794, in reraise
[rank1]:     raise exception
[rank1]: KeyError: Caught KeyError in DataLoader worker process 0.
[rank1]: Original Traceback (most recent call last):
[rank1]:   File "torch/utils/data/_utils/worker.py", line 374, in _worker_loop
[rank1]:     data = fetcher.fetch(index)  # type: ignore[possibly-undefined]
[rank1]:            ^^^^^^^^^^^^^^^^^^^^
[rank1]:   File "torch/utils/data/_utils/fetch.py", line 54, in fetch
[rank1]:     data = [self.dataset[idx] for idx in possibly_batched_index]
[rank1]:             ~~~~~~~~~~~~^^^^^
[rank1]:   File "train.py", line 25, in __getitem__
[rank1]:     raise KeyError(f"no item {i}")
[rank1]: KeyError: 'no item 0'


"""
WATCHDOG = """\
[rank6]:[E321 02:07:08.4 ProcessGroupNCCL.cpp:607] [Rank 6] Watchdog caught collective operation timeout: ...
frame #6: clone + 0x43 (0x7f35872f2353 in /lib/x86_64-linux-gnu/libc.so.6)

terminate called after throwing an instance of 'c10::DistBackendError'
  what():  [Rank 6] NCCL watchdog thread terminated with exception: [Rank 6] Watchdog caught collective \
operation timeout: WorkNCCL(SeqNum=880, OpType=BROADCAST, Timeout(ms)=1800000) ran for 1800902 milliseconds.
"""
BAD_ALLOC = """\
terminate called after throwing an instance of 'std::bad_alloc'
  what():  std::bad_alloc
"""
