/* SPDX-License-Identifier: GPL-2.0 */
/* Finds the verdict about a packet, and tells whether it covers this one: dataplane/verdicts lists
 * when. */
#pragma once

#include "maps.h"
#include "packet.h"

#define TTL_MIN 2
#define TCP_FLAGS 13 /* offset of the flags' byte */
#define TCP_ACK 0x10
#define TCP_UNUSUAL (0x01 | 0x02 | 0x04 | 0x20) /* FIN, SYN, RST, URG */

/* Slots of the table less one; set by the loader. Alone in its section, so that it is found. */
const volatile __u32 verdict_mask SEC(".rodata.mask") = 0;

/* How much a packet is: a GSO packet counts for all that are made of it. */
struct extent {
	__u32 packets;
	__u32 bytes;   /* of all of them, from the IP header on */
	__u32 largest; /* of one of them */
};

/* Addresses of one network differ in their last bytes, which a product would move up and out. */
static __always_inline __u64 halves(__u64 word)
{
	return word ^ word >> 32;
}

static __always_inline __u64 hash(const struct packet *packet)
{
	__u64 sum = halves(packet->src[0]) * 0x9e3779b97f4a7c15 + halves(packet->src[1]) * 0xbf58476d1ce4e5b9 +
		    halves(packet->dst[0]) * 0x94d049bb133111eb + halves(packet->dst[1]) * 0xd6e8feb86659fd93 +
		    (packet->ports | (__u64)packet->protocol << 32) * 0xa0761d6478bd642f;
	__u64 mixed = (sum ^ sum >> 32) * 0xe7037ed1a0b428db;

	return mixed ^ mixed >> 32;
}

static __always_inline int holds(const struct verdict *v, const struct packet *packet, __u32 ifindex)
{
	return v->ports == packet->ports && v->ifindex == ifindex && v->src[1] == packet->src[1] &&
	       v->dst[1] == packet->dst[1] && v->src[0] == packet->src[0] && v->dst[0] == packet->dst[0] &&
	       v->protocol == packet->protocol;
}

/* Whether a slot is live, and about packets like this one. What is compared, and read afterwards, is
 * not older than the status: before it the slot may have been about others. */
static __always_inline int matches(struct verdict *v, const struct packet *packet, __u32 ifindex)
{
#ifdef __TARGET_ARCH_x86
	if ((v->tag & VERDICT_STATUS) != VERDICT_LIVE)
		return 0;
	asm volatile("" ::: "memory");
#else
	if (!holds(v, packet, ifindex) || (v->tag & VERDICT_STATUS) != VERDICT_LIVE)
		return 0;
	asm volatile("" ::"r"(__sync_fetch_and_add(&v->packets, 0)) : "memory");
#endif
	return holds(v, packet, ifindex);
}

/* The verdict for packets with these headers from this interface. */
static __always_inline struct verdict *find(const struct packet *packet, __u32 ifindex)
{
	__u32 first = hash(packet);

	if (!packet->protocol)
		return NULL;
#pragma unroll
	for (int step = 0; step < VERDICT_WINDOW; step++) {
		__u32 slot = (first + step) & verdict_mask;
		struct verdict *v = bpf_map_lookup_elem(&verdicts, &slot);

		if (v && matches(v, packet, ifindex))
			return v;
	}
	return NULL;
}

static __always_inline __u32 fold(__u64 sum)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return (sum & 0xffff) + (sum >> 16);
}

/* GSO packets that are too large for the field say 0. */
static __always_inline int says(__be16 field, __u32 length)
{
	return bpf_ntohs(field) == (length <= 0xffff ? length : 0);
}

/* From the IP header on, as it says. The headers that dissect() read are there. */
static __always_inline __u32 ip_length(void *data, const struct packet *packet)
{
	struct ipv6hdr *ip6 = data + ETH_HLEN;
	struct iphdr *ip4 = data + ETH_HLEN;

	return packet->v6 ? sizeof(*ip6) + bpf_ntohs(ip6->payload_len) : bpf_ntohs(ip4->tot_len);
}

static __always_inline int ipv4_covered(void *l3, __u32 length)
{
	struct iphdr *ip = l3;
	__u32 *words = l3;

	return says(ip->tot_len, length) && ip->ttl >= TTL_MIN &&
	       fold((__u64)words[0] + words[1] + words[2] + words[3] + words[4]) == 0xffff;
}

static __always_inline int ipv6_covered(struct ipv6hdr *ip, __u32 length)
{
	return says(ip->payload_len, length - sizeof(*ip)) && ip->hop_limit >= TTL_MIN;
}

/* Length of the header if it is covered, 0 if not; `length` is that of header and payload. */
static __always_inline __u32 tcp_covered(void *l4, void *end, __u32 length)
{
	struct tcphdr *tcp = l4;
	__u32 header;

	if ((void *)(tcp + 1) > end)
		return 0;
	header = tcp->doff * 4;
	if (header < sizeof(*tcp) || header > length)
		return 0;
	return (((__u8 *)l4)[TCP_FLAGS] & (TCP_ACK | TCP_UNUSUAL)) == TCP_ACK ? header : 0;
}

static __always_inline __u32 udp_covered(void *l4, void *end, __u32 length, int v6)
{
	struct udphdr *udp = l4;

	if ((void *)(udp + 1) > end || !says(udp->len, length) || (v6 && !udp->check))
		return 0;
	return sizeof(*udp);
}

/* From the transport header on. */
static __always_inline __u32 checksum_offset(const struct packet *packet)
{
	return packet->protocol == IPPROTO_UDP ? offsetof(struct udphdr, check) : offsetof(struct tcphdr, check);
}

/* Whether packets like this one are covered by verdicts at all. `length` is that from the IP header
 * on, `gso_size` 0 or the payload of each packet that is made of this one. */
static __always_inline int covered(void *data, void *end, const struct packet *packet, __u32 length,
				   __u32 gso_size, struct extent *extent)
{
	void *l3 = data + ETH_HLEN, *l4 = data + L4_OFFSET(packet);
	__u32 l3_header = L4_OFFSET(packet) - ETH_HLEN, l4_header, headers, payload;

	if (l4 > end || length < l3_header)
		return 0;
	if (packet->v6 ? !ipv6_covered(l3, length) : !ipv4_covered(l3, length))
		return 0;
	if (packet->protocol == IPPROTO_TCP)
		l4_header = tcp_covered(l4, end, length - l3_header);
	else
		l4_header = udp_covered(l4, end, length - l3_header, packet->v6);
	if (!l4_header)
		return 0;
	extent->packets = 1;
	extent->bytes = extent->largest = length;
	headers = l3_header + l4_header;
	payload = length - headers;
	if (gso_size && payload > gso_size) {
		extent->packets = (payload + gso_size - 1) / gso_size;
		extent->bytes += (extent->packets - 1) * headers;
		extent->largest = headers + gso_size;
	}
	return 1;
}

/* Whether this verdict holds for a packet of this extent with this link-layer address. */
static __always_inline int admits(const struct verdict *v, const __u8 *mac, const struct extent *extent,
				  __u64 now)
{
	return same_mac(v->expect, mac) && extent->largest <= v->mtu &&
	       (__s64)(now - v->last_used) < (__s64)v->lifetime;
}
