/* SPDX-License-Identifier: GPL-2.0 */
/* The verdict cache: what workers have decided about exact flows. The Rust side, which writes it
 * through a mapping of the map's memory, is dataplane/verdicts; a test of this crate keeps both
 * equal. */
#pragma once

#define VERDICT_STATUS 0xff
#define VERDICT_LIVE 0x22
#define VERDICT_WINDOW 4 /* slots that a key may live in, from the place that its hash names */

enum verdict_exit { EXIT_POD = 1, EXIT_UPLINK = 2 };
enum verdict_rewrite { REWRITE_NOTHING, REWRITE_SOURCE, REWRITE_DESTINATION };

struct verdict {
	/* Which packets. */
	__u64 tag;    /* version << 8 | status */
	__u64 src[2]; /* as in the frame, IPv4 as ::ffff:a.b.c.d */
	__u64 dst[2];
	__u32 ports; /* as in the frame */
	__u32 ifindex;
	__u8 protocol;
	__u8 exit;
	__u8 rewrite;
	__u8 uplink;
	__u16 mtu; /* from the IP header on */
	__u16 pad0;
	__u8 expect[6]; /* source MAC of a pod, destination MAC on an uplink */
	__u16 pad1;
	/* What happened, and where to. */
	__u64 packets;
	__u64 bytes;	 /* from the IP header on */
	__u64 last_used; /* bpf_ktime_get_coarse_ns() */
	__u64 lifetime;	 /* ns */
	__u8 to[6]; /* and the next as they follow each other in a frame */
	__u8 from[6];
	__u32 out;
	__be16 port; /* the new one */
	__u16 pad2;
	__u32 difference; /* of the addresses, as bpf_csum_diff() gives it */
	__u32 generation;
	__u32 version;
	/* How addresses change; the rest is the agent's. */
	__u64 address[2];
	__u64 agent[6];
};

_Static_assert(sizeof(struct verdict) == 192, "three cache lines");
