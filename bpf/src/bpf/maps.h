/* SPDX-License-Identifier: GPL-2.0 */
/* Maps shared with the loader (bpf/src/maps.rs), pinned by name in the agent's directory. */
#pragma once

#include "verdict.h"

#define MAX_QUEUES 64  /* per device */
#define MAX_UPLINKS 16 /* devices */

/* What the agent tells the programs. */
struct config {
	__u32 hub;	/* interface index of the hub's host side; 0: drop everything */
	__u32 workers;	/* queues of the hub */
	__u8 gateway[6];
	__u8 offload; /* whether verdicts are applied */
	__u8 pad;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct config);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} config_map SEC(".maps");

/* Queue of the hub → socket. The kernel removes an entry when its socket is closed. */
struct {
	__uint(type, BPF_MAP_TYPE_XSKMAP);
	__uint(max_entries, MAX_QUEUES);
	__type(key, __u32);
	__type(value, __u32);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} hub_sockets SEC(".maps");

/* Uplink slot * MAX_QUEUES + queue → socket. */
struct {
	__uint(type, BPF_MAP_TYPE_XSKMAP);
	__uint(max_entries, MAX_UPLINKS * MAX_QUEUES);
	__type(key, __u32);
	__type(value, __u32);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} uplink_sockets SEC(".maps");

/* Interface index of an uplink → its slot. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_UPLINKS);
	__type(key, __u32);
	__type(value, __u32);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} uplinks SEC(".maps");

/* IPv4 addresses as ::ffff:a.b.c.d, so that one trie serves both families. */
struct prefix {
	__u32 length;
	__u32 address[4];
};

/* Where this node's pods live. */
struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, 64);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct prefix);
	__type(value, __u8);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} pod_cidrs SEC(".maps");

/* The table of verdicts. Its size is set by the loader, always a power of two. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct verdict);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} verdicts SEC(".maps");

/* Why the kernel side lost a frame; names and texts are in bpf/src/maps.rs. */
enum loss {
	LOSS_HUB_SOCKET,
	LOSS_UPLINK_SOCKET,
	LOSS_UNCONFIGURED,
	LOSS_REWRITE,
	LOSS_UNMARKED,
	LOSS_UPLINK_MISS,
	LOSS_COUNT,
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, LOSS_COUNT);
	__type(key, __u32);
	__type(value, __u64);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} losses SEC(".maps");

static __always_inline void count(enum loss loss)
{
	__u32 key = loss;
	__u64 *value = bpf_map_lookup_elem(&losses, &key);

	if (value)
		*value += 1;
}

static __always_inline int drop(enum loss why)
{
	count(why);
	return TC_ACT_SHOT;
}

static __always_inline struct config *read_config(void)
{
	__u32 zero = 0;
	struct config *config = bpf_map_lookup_elem(&config_map, &zero);

	return config && config->hub ? config : NULL;
}
