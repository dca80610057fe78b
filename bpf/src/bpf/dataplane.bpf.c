// SPDX-License-Identifier: GPL-2.0
/* The kernel's part of the way: it decides which worker sees a frame, hands back what a worker sent,
 * and repeats what a worker has decided. Whatever cannot be handed on is dropped and counted. */
#include <stddef.h>
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/pkt_cls.h>
#include <linux/tcp.h>
#include <linux/udp.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "hub.h"
#include "maps.h"
#include "apply.h"
#include "flow.h"

#define VLAN_ID 0x0fff
#define MAX_TAGS 2 /* whoever nests more priority tags has something to hide */

static __always_inline void write_mark(__u8 mac[6], enum hub_kind kind, __u32 ifindex)
{
	mac[0] = HUB_MARK;
	mac[1] = kind;
	mac[2] = ifindex >> 24;
	mac[3] = ifindex >> 16;
	mac[4] = ifindex >> 8;
	mac[5] = ifindex;
}

/* Sends a frame to the worker of its flow, marked with where it came from. */
static __always_inline int to_worker(struct __sk_buff *skb, struct config *config, enum hub_kind kind,
				     const struct packet *packet)
{
	__u8 mark[6];

	/* Recorded receive queues count from 1; the hub's transmit queue follows it. */
	skb->queue_mapping = pick_worker(packet, config->workers) + 1;
	/* The stack took a VLAN tag out of the frame. Pushing another one puts it back, and the
	 * worker sees and refuses it; the pushed one stays outside and goes nowhere. */
	if (skb->vlan_present && bpf_skb_vlan_push(skb, bpf_htons(ETH_P_8021Q), 0))
		return drop(LOSS_REWRITE);
	write_mark(mark, kind, skb->ifindex);
	if (bpf_skb_store_bytes(skb, offsetof(struct ethhdr, h_dest), mark, sizeof(mark), 0))
		return drop(LOSS_REWRITE);
	return bpf_redirect(config->hub, 0);
}

/* What the destination of a pod's frame says about whom it is for. */
static __always_inline enum hub_kind classify(const __u8 *mac, const struct config *config)
{
	if (same_mac(mac, config->gateway))
		return HUB_POD;
	return mac[0] & 1 ? HUB_POD_GROUP : HUB_POD_OTHER;
}

/* Ingress of a pod's veth: all that the pod sends. */
SEC("tc/ingress")
int steer_from_pod(struct __sk_buff *skb)
{
	struct config *config = read_config();
	struct packet packet = {};
	enum hub_kind kind;
	int action, ip;
	void *data;

	if (!config)
		return drop(LOSS_UNCONFIGURED);
	ip = dissect_skb(skb, &packet);
	data = (void *)(long)skb->data;
	if (data + ETH_HLEN > (void *)(long)skb->data_end)
		return drop(LOSS_REWRITE);
	kind = classify(data, config);
	if (ip && kind == HUB_POD && config->offload) {
		action = repeat_verdict(skb, &packet, offsetof(struct ethhdr, h_source));
		if (action != TC_ACT_UNSPEC)
			return action;
	}
	return to_worker(skb, config, kind, &packet);
}

/* Egress of a pod's veth: what the host sends to the pod past the hub. */
SEC("tc/egress")
int steer_to_pod(struct __sk_buff *skb)
{
	struct config *config = read_config();
	struct packet packet = {};

	if (!config)
		return drop(LOSS_UNCONFIGURED);
	dissect_skb(skb, &packet);
	return to_worker(skb, config, skb->ingress_ifindex ? HUB_FORWARDED : HUB_HOST_TO_POD, &packet);
}

/* Egress of the hub's host side: what the host routes to pods. What it received from elsewhere is
 * not its own, whatever the source address says. Frames that were steered here are marked already. */
SEC("tc/egress")
int steer_from_host(struct __sk_buff *skb)
{
	struct config *config = read_config();
	struct packet packet = {};
	__u8 mark[6];

	if (!config)
		return drop(LOSS_UNCONFIGURED);
	if (bpf_skb_load_bytes(skb, offsetof(struct ethhdr, h_dest), mark, sizeof(mark)))
		return drop(LOSS_REWRITE);
	if (mark[0] != HUB_MARK || mark[1] != HUB_HOST)
		return TC_ACT_OK;
	if (skb->ingress_ifindex) {
		write_mark(mark, HUB_FORWARDED, 0);
		if (bpf_skb_store_bytes(skb, offsetof(struct ethhdr, h_dest), mark, sizeof(mark), 0))
			return drop(LOSS_REWRITE);
	}
	dissect_skb(skb, &packet);
	skb->queue_mapping = pick_worker(&packet, config->workers) + 1;
	return TC_ACT_OK;
}

/* Ingress of the hub's host side: what workers send. */
SEC("tc/ingress")
int deliver(struct __sk_buff *skb)
{
	struct config *config = read_config();
	__u8 mark[6];
	__u32 ifindex;

	if (!config)
		return drop(LOSS_UNCONFIGURED);
	if (bpf_skb_load_bytes(skb, offsetof(struct ethhdr, h_source), mark, sizeof(mark)))
		return drop(LOSS_UNMARKED);
	ifindex = (__u32)mark[2] << 24 | mark[3] << 16 | mark[4] << 8 | mark[5];
	if (mark[0] != HUB_MARK)
		return drop(LOSS_UNMARKED);
	if (mark[1] == HUB_HOST && !ifindex)
		return TC_ACT_OK;
	if (mark[1] != HUB_POD || !ifindex)
		return drop(LOSS_UNMARKED);
	if (bpf_skb_store_bytes(skb, offsetof(struct ethhdr, h_source), config->gateway, ETH_ALEN, 0))
		return drop(LOSS_REWRITE);
	/* It arrived at the hub for somebody else; the pod's stack must take it for its own. */
	bpf_skb_change_type(skb, PACKET_HOST);
	return bpf_redirect_peer(ifindex, 0);
}

/* The hub's worker side: everything to the worker of the queue. */
SEC("xdp")
int redirect_hub(struct xdp_md *ctx)
{
	int action = bpf_redirect_map(&hub_sockets, ctx->rx_queue_index, XDP_DROP);

	if (action != XDP_REDIRECT)
		count(LOSS_HUB_SOCKET);
	return action;
}

/* Frames as the host reads them: VLAN id 0 is a priority, not a VLAN. */
static __always_inline int is_priority_tag(__be16 ethertype, __be16 tci)
{
	return (ethertype == bpf_htons(ETH_P_8021Q) || ethertype == bpf_htons(ETH_P_8021AD)) &&
	       !(tci & bpf_htons(VLAN_ID));
}

/* The destination address of an IP packet as a host prefix; 0 if this is none, negative if it
 * cannot be told. */
static __always_inline int destination(struct xdp_md *ctx, struct prefix *key)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	__be16 *type = data + offsetof(struct ethhdr, h_proto);
	struct ipv6hdr *ip6;
	struct iphdr *ip4;

#pragma unroll
	for (int tags = 0; tags < MAX_TAGS; tags++)
		if ((void *)(type + 2) <= end && is_priority_tag(type[0], type[1]))
			type += 2;
	if ((void *)(type + 2) > end)
		return 0;
	if (is_priority_tag(type[0], type[1]))
		return -1;
	key->length = 128;
	ip4 = (void *)(type + 1);
	ip6 = (void *)(type + 1);
	if (*type == bpf_htons(ETH_P_IP) && (void *)(ip4 + 1) <= end) {
		key->address[2] = bpf_htonl(0xffff);
		key->address[3] = ip4->daddr;
		return 1;
	}
	if (*type == bpf_htons(ETH_P_IPV6) && (void *)(ip6 + 1) <= end) {
		__builtin_memcpy(key->address, &ip6->daddr, 16);
		return 1;
	}
	return 0;
}

/* Whether a verdict will be repeated once the packet has an skb; it may be one of many by then. What
 * fills a frame up to the least length of Ethernet is cut off. */
static __always_inline int has_verdict(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct ethhdr *eth = data;
	struct extent extent;
	struct packet packet;
	struct verdict *v;
	__u32 length;
	int surplus;

	if (!dissect(data, end, &packet))
		return 0;
	v = find(&packet, ctx->ingress_ifindex);
	if (!v)
		return 0;
	length = ip_length(data, &packet);
	/* There may be more of the frame than this part. */
	surplus = end - data - ETH_HLEN - length;
	if ((surplus > 0 && end - data > ETH_ZLEN) || !covered(data, end, &packet, length, 0, &extent))
		return 0;
	if (!admits(v, eth->h_dest, &extent, bpf_ktime_get_coarse_ns()))
		return 0;
	return surplus <= 0 || !bpf_xdp_adjust_tail(ctx, -surplus);
}

/* An uplink: packets to this node's pods to a worker, unless a verdict about them is known;
 * everything else is the host's. */
SEC("xdp")
int redirect_uplink(struct xdp_md *ctx)
{
	__u32 ifindex = ctx->ingress_ifindex, queue = ctx->rx_queue_index, *slot;
	struct config *config = read_config();
	struct prefix key = {};
	int action = XDP_DROP, found = destination(ctx, &key);

	if (!found || (found > 0 && !bpf_map_lookup_elem(&pod_cidrs, &key)))
		return XDP_PASS;
	if (config && config->offload && has_verdict(ctx))
		return XDP_PASS;
	slot = bpf_map_lookup_elem(&uplinks, &ifindex);
	if (slot && queue < MAX_QUEUES)
		action = bpf_redirect_map(&uplink_sockets, *slot * MAX_QUEUES + queue, XDP_DROP);
	if (action != XDP_REDIRECT)
		count(LOSS_UPLINK_SOCKET);
	return action;
}

/* Ingress of an uplink: repeats the verdicts that were seen before there was an skb, which is many
 * packets of a TCP stream in one by now. What is not for pods is left to others' programs. */
SEC("tc/ingress")
int steer_from_uplink(struct __sk_buff *skb)
{
	struct config *config = read_config();
	struct packet packet = {};
	struct prefix key = {.length = 128};
	int action = TC_ACT_UNSPEC;

	if (!dissect_skb(skb, &packet) || (skb->vlan_present && skb->vlan_tci & VLAN_ID))
		return TC_ACT_UNSPEC;
	__builtin_memcpy(key.address, packet.dst, sizeof(packet.dst));
	if (!bpf_map_lookup_elem(&pod_cidrs, &key))
		return TC_ACT_UNSPEC;
	/* A priority that the device took out of the frame, which XDP did not see. */
	if (skb->vlan_present && bpf_skb_vlan_pop(skb))
		return drop(LOSS_REWRITE);
	if (config && config->offload)
		action = repeat_verdict(skb, &packet, offsetof(struct ethhdr, h_dest));
	return action == TC_ACT_UNSPEC ? drop(LOSS_UPLINK_MISS) : action;
}

char LICENSE[] SEC("license") = "GPL";
