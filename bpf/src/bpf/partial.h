/* SPDX-License-Identifier: GPL-2.0 */
/* Where a checksum that is still to be completed will be written. Whoever sends through a packet
 * socket with PACKET_VNET_HDR names any place in the packet, such as a port or an address; the device
 * writes there after all decisions. On the way to a worker checksums are completed before. */
#pragma once

#include <bpf/bpf_core_read.h>

#include "cache.h"

#define CHECKSUM_PARTIAL 3

/* What is read of the kernel's structure. */
struct sk_buff {
	unsigned char *head;
	unsigned char *data;
	__u8 ip_summed : 2;
	__u16 csum_start; /* from head on */
	__u16 csum_offset;
} __attribute__((preserve_access_index));

/* Since Linux 6.2. */
void *bpf_cast_to_kern_ctx(void *ctx) __ksym __weak;

/* Whether nothing but the checksum of the transport protocol will be written. Not so if that cannot
 * be told. */
static __always_inline int completes_in_place(struct __sk_buff *ctx, const struct packet *packet)
{
	struct sk_buff *skb;

	if (!bpf_ksym_exists(bpf_cast_to_kern_ctx))
		return 0;
	skb = bpf_cast_to_kern_ctx(ctx);
	if (BPF_CORE_READ_BITFIELD(skb, ip_summed) != CHECKSUM_PARTIAL)
		return 1;
	return skb->csum_start == skb->data - skb->head + L4_OFFSET(packet) &&
	       skb->csum_offset == checksum_offset(packet);
}
