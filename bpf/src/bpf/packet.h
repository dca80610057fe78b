/* SPDX-License-Identifier: GPL-2.0 */
/* What the headers of a frame say about its flow; for tc and XDP programs. */
#pragma once

#define IPV4_PLAIN 0x45	      /* version 4, no options */
#define IPV4_FRAGMENT 0xbfff  /* all but the DF bit */
#define L4_OFFSET(packet) (ETH_HLEN + ((packet)->v6 ? sizeof(struct ipv6hdr) : sizeof(struct iphdr)))

struct packet {
	__u64 src[2]; /* as in the frame, IPv4 as ::ffff:a.b.c.d */
	__u64 dst[2];
	union {
		__u32 ports; /* as in the frame */
		struct {
			__be16 sport;
			__be16 dport;
		};
	};
	__u8 protocol; /* TCP, UDP or SCTP; 0 if there are no ports where they are expected */
	__u8 v6;
};

static __always_inline int is_v4_mapped(const __u64 address[2])
{
	const __u32 *words = (void *)address;

	return !address[0] && words[2] == bpf_htonl(0xffff);
}

/* The second half of ::ffff:a.b.c.d. */
static __always_inline __u64 v4_mapped(__be32 address)
{
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
	return (__u64)address << 32 | bpf_htonl(0xffff);
#else
	return (__u64)0xffff << 32 | address;
#endif
}

/* False if this is no IP packet. Ports only where every packet of the flow has them in the same
 * place: not in fragments, not behind options or extension headers. */
static __always_inline int dissect(void *data, void *end, struct packet *packet)
{
	struct ethhdr *eth = data;
	struct iphdr *ip4 = (void *)(eth + 1);
	struct ipv6hdr *ip6 = (void *)(eth + 1);
	__u8 protocol = 0;
	__u32 *ports;

	if ((void *)(ip4 + 1) > end)
		return 0;
	if (eth->h_proto == bpf_htons(ETH_P_IP)) {
		packet->v6 = 0;
		packet->src[0] = packet->dst[0] = 0;
		packet->src[1] = v4_mapped(ip4->saddr);
		packet->dst[1] = v4_mapped(ip4->daddr);
		if (*(__u8 *)ip4 == IPV4_PLAIN && !(ip4->frag_off & bpf_htons(IPV4_FRAGMENT)))
			protocol = ip4->protocol;
		ports = (void *)(ip4 + 1);
	} else if (eth->h_proto == bpf_htons(ETH_P_IPV6) && (void *)(ip6 + 1) <= end) {
		const __u64 *src = (void *)&ip6->saddr, *dst = (void *)&ip6->daddr;

		packet->v6 = 1;
		packet->src[0] = src[0];
		packet->src[1] = src[1];
		packet->dst[0] = dst[0];
		packet->dst[1] = dst[1];
		if (ip6->version == 6 && !is_v4_mapped(packet->src) && !is_v4_mapped(packet->dst))
			protocol = ip6->nexthdr;
		ports = (void *)(ip6 + 1);
	} else {
		return 0;
	}
	packet->protocol = 0;
	packet->ports = 0;
	if ((protocol == IPPROTO_TCP || protocol == IPPROTO_UDP || protocol == IPPROTO_SCTP) &&
	    (void *)(ports + 1) <= end) {
		packet->protocol = protocol;
		packet->ports = *ports;
	}
	return 1;
}

/* Both at even addresses. */
static __always_inline int same_mac(const void *a, const void *b)
{
	const __u16 *x = a, *y = b;

	return !((x[0] ^ y[0]) | (x[1] ^ y[1]) | (x[2] ^ y[2]));
}

/* Headers up to the end of the longest TCP header. */
#define HEADERS (ETH_HLEN + sizeof(struct ipv6hdr) + 60)

/* Makes sure that the headers can be read in place, and dissects them. */
static __always_inline int dissect_skb(struct __sk_buff *skb, struct packet *packet)
{
	__u32 linear = skb->data_end - skb->data, wanted = skb->len < HEADERS ? skb->len : HEADERS;

	if (linear < wanted && bpf_skb_pull_data(skb, wanted))
		return 0;
	return dissect((void *)(long)skb->data, (void *)(long)skb->data_end, packet);
}
