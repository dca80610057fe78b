/* SPDX-License-Identifier: GPL-2.0 */
/* Does what a verdict says: rewrites the packet and sends it where it goes. */
#pragma once

#include "cache.h"
#include "partial.h"

/* The checksum of the transport protocol, whether it is complete, or partial as the pod's stack
 * left it, or known as the sum of all that was received. */
static __always_inline int translate_checksum(struct __sk_buff *skb, const struct packet *packet,
					      const struct verdict *v)
{
	__u64 flags = packet->protocol == IPPROTO_UDP ? BPF_F_MARK_MANGLED_0 : 0;
	__u32 at = L4_OFFSET(packet) + checksum_offset(packet);
	__be16 port = v->rewrite == REWRITE_SOURCE ? packet->sport : packet->dport;

	if (bpf_l4_csum_replace(skb, at, 0, v->difference, flags | BPF_F_PSEUDO_HDR))
		return -1;
	return port == v->port ? 0 : bpf_l4_csum_replace(skb, at, port, v->port, flags | sizeof(port));
}

/* One hop less, in a checksum's terms. */
#define HOP_V4 ((__u16)~bpf_htons(0x0100))
#define HOP_V6 (~bpf_htonl(1))

static __always_inline void rewrite_ipv4(struct iphdr *ip, const struct verdict *v)
{
	__u32 address = ((__u32 *)v->address)[3], difference = 0;

	if (v->rewrite != REWRITE_NOTHING)
		difference = v->difference;
	if (v->rewrite == REWRITE_SOURCE)
		ip->saddr = address;
	else if (v->rewrite == REWRITE_DESTINATION)
		ip->daddr = address;
	ip->check = ~fold((__u64)(__u16)~ip->check + difference + HOP_V4);
	ip->ttl--;
}

static __always_inline void rewrite_ipv6(struct ipv6hdr *ip, const struct verdict *v)
{
	__u64 *address = (void *)(v->rewrite == REWRITE_SOURCE ? &ip->saddr : &ip->daddr);

	if (v->rewrite != REWRITE_NOTHING) {
		address[0] = v->address[0];
		address[1] = v->address[1];
	}
	ip->hop_limit--;
}

static __always_inline int rewrite(struct __sk_buff *skb, const struct packet *packet, const struct verdict *v)
{
	__u32 difference = 0;
	void *data, *end;
	__be16 *ports;

	if (v->rewrite != REWRITE_NOTHING) {
		if (translate_checksum(skb, packet, v))
			return -1;
		difference = v->difference;
	}
	/* A sum of all that was received: over IPv4 it stays, for the header has its own checksum. The
	 * helper has taken the change of IPv6 addresses out of it, as if they had one too. */
	if (packet->v6)
		bpf_csum_update(skb, fold((__u64)difference + HOP_V6));
	data = (void *)(long)skb->data;
	end = (void *)(long)skb->data_end;
	ports = data + L4_OFFSET(packet);
	if ((void *)(ports + 2) > end)
		return -1;
	if (packet->v6)
		rewrite_ipv6(data + ETH_HLEN, v);
	else
		rewrite_ipv4(data + ETH_HLEN, v);
	if (v->rewrite == REWRITE_SOURCE)
		ports[0] = v->port;
	else if (v->rewrite == REWRITE_DESTINATION)
		ports[1] = v->port;
	*(__u64 *)data = *(__u64 *)v->to;
	*(__u32 *)(data + 8) = *(__u32 *)(v->to + 8);
	return 0;
}

static __always_inline void count_use(struct verdict *v, const struct extent *extent, __u64 now)
{
	__sync_fetch_and_add(&v->packets, extent->packets);
	__sync_fetch_and_add(&v->bytes, extent->bytes);
	v->last_used = now;
}

/* Repeats what was decided about the flow of this packet; TC_ACT_UNSPEC if nothing is known that
 * covers it. The verdict names the link-layer address at `mac`. */
static __always_inline int repeat_verdict(struct __sk_buff *skb, const struct packet *packet, __u32 mac)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	struct verdict *v = find(packet, skb->ifindex);
	struct extent extent;
	__u64 now;

	if (!v || skb->vlan_present)
		return TC_ACT_UNSPEC;
	if (!covered(data, end, packet, skb->len - ETH_HLEN, skb->gso_size, &extent))
		return TC_ACT_UNSPEC;
	now = bpf_ktime_get_coarse_ns();
	if (!admits(v, data + mac, &extent, now))
		return TC_ACT_UNSPEC;
	if (v->exit == EXIT_UPLINK && !completes_in_place(skb, packet))
		return TC_ACT_UNSPEC;
	count_use(v, &extent, now);
	if (rewrite(skb, packet, v))
		return drop(LOSS_REWRITE);
	if (v->exit == EXIT_UPLINK)
		return bpf_redirect(v->out, 0);
	if (skb->pkt_type != PACKET_HOST)
		bpf_skb_change_type(skb, PACKET_HOST);
	return bpf_redirect_peer(v->out, 0);
}
