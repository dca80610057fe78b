/* Traffic for measurements: frames made in the kernel, and a place where they end and are counted. */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/pkt_cls.h>
#include <linux/udp.h>
#include <stdbool.h>
#include <stddef.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

/* Where the measured datagrams go to; net/traffic.rs has the same. */
#define SINK_PORT 8080

struct headers {
	struct ethhdr eth;
	struct iphdr ip;
	struct udphdr udp;
} __attribute__((packed));

/* Headers of every frame, and of how many flows; net/frames.rs has the same. */
struct template {
	struct headers headers;
	__u16 flows;
	__u32 sum; /* of the UDP packet with a source port of 0, not folded */
};

_Static_assert(sizeof(struct headers) == 42 && sizeof(struct template) == 48, "as in net/frames.rs");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct template);
} templates SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} turns SEC(".maps");

struct arrived {
	__u64 packets;
	__u64 bytes;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct arrived);
} arrivals SEC(".maps");

/* Run by BPF_PROG_TEST_RUN with live frames: they are used again and again, and come back with what
 * the way has made of their headers, so all of these are written anew. */
SEC("xdp")
int generate(struct xdp_md *ctx)
{
	struct headers *frame = (void *)(long)ctx->data;
	__u32 zero = 0, sum, *turn = bpf_map_lookup_elem(&turns, &zero);
	struct template *template = bpf_map_lookup_elem(&templates, &zero);

	if (!turn || !template || (void *)(frame + 1) > (void *)(long)ctx->data_end)
		return XDP_ABORTED;
	*frame = template->headers;
	*turn = *turn + 1 < template->flows ? *turn + 1 : 0;
	frame->udp.source = bpf_htons(bpf_ntohs(frame->udp.source) + *turn);
	sum = template->sum + frame->udp.source;
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	frame->udp.check = ~sum & 0xffff ?: 0xffff;
	return XDP_PASS;
}

/* Whether a packet is one of the measured datagrams. */
static __always_inline bool is_measured(struct __sk_buff *skb)
{
	__u32 header = sizeof(struct ethhdr);
	struct udphdr udp;
	__u8 next;

	if (skb->protocol == bpf_htons(ETH_P_IP)) {
		if (bpf_skb_load_bytes(skb, header + offsetof(struct iphdr, protocol), &next, sizeof(next)))
			return false;
		header += sizeof(struct iphdr);
	} else if (skb->protocol == bpf_htons(ETH_P_IPV6)) {
		if (bpf_skb_load_bytes(skb, header + offsetof(struct ipv6hdr, nexthdr), &next, sizeof(next)))
			return false;
		header += sizeof(struct ipv6hdr);
	} else {
		return false;
	}
	return next == IPPROTO_UDP && !bpf_skb_load_bytes(skb, header, &udp, sizeof(udp)) &&
	       udp.dest == bpf_htons(SINK_PORT);
}

/* Ingress of the receiver's interface: the measured datagrams are counted and end here. */
SEC("tc")
int sink(struct __sk_buff *skb)
{
	struct arrived *arrived;
	__u32 zero = 0;

	if (!is_measured(skb))
		return TC_ACT_UNSPEC;
	arrived = bpf_map_lookup_elem(&arrivals, &zero);
	if (!arrived)
		return TC_ACT_UNSPEC;
	arrived->packets++;
	arrived->bytes += skb->len;
	return TC_ACT_SHOT;
}

char LICENSE[] SEC("license") = "GPL";
