/* SPDX-License-Identifier: GPL-2.0 */
/* Which worker a frame goes to: both directions of a flow, and all fragments of a datagram, to
 * the same one. A wrong guess costs speed, never correctness. */
#pragma once

#define IPV4_FRAGMENT 0x3fff /* more fragments | offset */

struct side {
	__u32 address; /* folded */
	__u16 port;
};

/* Finalizer of MurmurHash3: every input bit reaches every output bit. */
static __always_inline __u32 mix(__u32 h)
{
	h ^= h >> 16;
	h *= 0x85ebca6b;
	h ^= h >> 13;
	h *= 0xc2b2ae35;
	return h ^ h >> 16;
}

static __always_inline __u32 fold(const struct in6_addr *a)
{
	return a->s6_addr32[0] ^ mix(a->s6_addr32[1]) ^ mix(a->s6_addr32[2] + 1) ^ a->s6_addr32[3];
}

static __always_inline __u32 hash_side(const struct side *side)
{
	return mix(mix(side->address) + side->port);
}

/* Fills both sides; false if this is no IP packet. Ports only where every packet of the flow has
 * them in the same place: not in fragments, not behind IPv6 extension headers. */
static __always_inline int dissect(struct __sk_buff *skb, struct side *src, struct side *dst)
{
	__u32 at = ETH_HLEN;
	__be16 ports[2], ethertype;
	struct ipv6hdr ip6;
	struct iphdr ip4;
	__u8 protocol;

	if (bpf_skb_load_bytes(skb, offsetof(struct ethhdr, h_proto), &ethertype, sizeof(ethertype)))
		return 0;
	if (ethertype == bpf_htons(ETH_P_IP)) {
		if (bpf_skb_load_bytes(skb, at, &ip4, sizeof(ip4)))
			return 0;
		src->address = ip4.saddr;
		dst->address = ip4.daddr;
		protocol = ip4.frag_off & bpf_htons(IPV4_FRAGMENT) ? 0 : ip4.protocol;
		at += ip4.ihl * 4;
	} else if (ethertype == bpf_htons(ETH_P_IPV6)) {
		if (bpf_skb_load_bytes(skb, at, &ip6, sizeof(ip6)))
			return 0;
		src->address = fold(&ip6.saddr);
		dst->address = fold(&ip6.daddr);
		protocol = ip6.nexthdr;
		at += sizeof(ip6);
	} else {
		return 0;
	}
	if ((protocol == IPPROTO_TCP || protocol == IPPROTO_UDP || protocol == IPPROTO_SCTP) &&
	    !bpf_skb_load_bytes(skb, at, ports, sizeof(ports))) {
		src->port = ports[0];
		dst->port = ports[1];
	}
	return 1;
}

/* Anything that is not IP (ARP, unknown) goes to the first worker. */
static __always_inline __u32 pick_worker(struct __sk_buff *skb, __u32 workers)
{
	struct side src = {}, dst = {};

	if (!dissect(skb, &src, &dst))
		return 0;
	return ((__u64)mix(hash_side(&src) + hash_side(&dst)) * workers) >> 32;
}
