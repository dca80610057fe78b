/* SPDX-License-Identifier: GPL-2.0 */
/* Which worker a packet goes to: both directions of a flow, and all fragments of a datagram, to
 * the same one. A wrong guess costs speed, never correctness. */
#pragma once

#include "packet.h"

static __always_inline __u64 hash_side(const __u64 address[2], __be16 port)
{
	__u64 h = address[0] * 0x9e3779b97f4a7c15 + (address[1] ^ port) * 0xbf58476d1ce4e5b9;

	return (h ^ h >> 32) * 0x94d049bb133111eb;
}

static __always_inline __u32 pick_worker(const struct packet *packet, __u32 workers)
{
	__u64 h = hash_side(packet->src, packet->sport) + hash_side(packet->dst, packet->dport);

	return (h >> 32) * workers >> 32;
}
