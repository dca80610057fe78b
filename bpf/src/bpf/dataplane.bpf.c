// SPDX-License-Identifier: GPL-2.0
/* The kernel's part of the way: it only decides which worker sees a frame, and hands back what a
 * worker sent. Whatever cannot be handed on is dropped and counted. */
#include <stddef.h>
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "hub.h"
#include "maps.h"
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

static __always_inline int same_mac(const __u8 *a, const __u8 *b)
{
	int differ = 0;

#pragma unroll
	for (int i = 0; i < ETH_ALEN; i++)
		differ |= a[i] ^ b[i];
	return !differ;
}

static __always_inline struct config *read_config(void)
{
	__u32 zero = 0;
	struct config *config = bpf_map_lookup_elem(&config_map, &zero);

	return config && config->hub ? config : NULL;
}

static __always_inline int drop(enum loss why)
{
	count(why);
	return TC_ACT_SHOT;
}

/* Sends a frame to the worker of its flow, marked with where it came from. */
static __always_inline int to_worker(struct __sk_buff *skb, struct config *config, enum hub_kind kind)
{
	__u8 mark[6];

	/* The stack took a VLAN tag out of the frame. Pushing another one puts it back, and the
	 * worker sees and refuses it; the pushed one stays outside and goes nowhere. */
	if (skb->vlan_present && bpf_skb_vlan_push(skb, bpf_htons(ETH_P_8021Q), 0))
		return drop(LOSS_REWRITE);
	write_mark(mark, kind, skb->ifindex);
	if (bpf_skb_store_bytes(skb, offsetof(struct ethhdr, h_dest), mark, sizeof(mark), 0))
		return drop(LOSS_REWRITE);
	/* Recorded receive queues count from 1; the hub's transmit queue follows it. */
	skb->queue_mapping = pick_worker(skb, config->workers) + 1;
	return bpf_redirect(config->hub, 0);
}

/* Ingress of a pod's veth: all that the pod sends. */
SEC("tc/ingress")
int steer_from_pod(struct __sk_buff *skb)
{
	struct config *config = read_config();
	enum hub_kind kind = HUB_POD_OTHER;
	__u8 mac[6];

	if (!config)
		return drop(LOSS_UNCONFIGURED);
	if (bpf_skb_load_bytes(skb, offsetof(struct ethhdr, h_dest), mac, sizeof(mac)))
		return drop(LOSS_REWRITE);
	if (same_mac(mac, config->gateway))
		kind = HUB_POD;
	else if (mac[0] & 1)
		kind = HUB_POD_GROUP;
	return to_worker(skb, config, kind);
}

/* Egress of a pod's veth: what the host sends to the pod past the hub. */
SEC("tc/egress")
int steer_to_pod(struct __sk_buff *skb)
{
	struct config *config = read_config();

	if (!config)
		return drop(LOSS_UNCONFIGURED);
	return to_worker(skb, config, skb->ingress_ifindex ? HUB_FORWARDED : HUB_HOST_TO_POD);
}

/* Egress of the hub's host side: what the host routes to pods. What it received from elsewhere is
 * not its own, whatever the source address says. Frames that were steered here are marked already. */
SEC("tc/egress")
int steer_from_host(struct __sk_buff *skb)
{
	struct config *config = read_config();
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
	skb->queue_mapping = pick_worker(skb, config->workers) + 1;
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
		key->address[10] = key->address[11] = 0xff;
		__builtin_memcpy(&key->address[12], &ip4->daddr, 4);
		return 1;
	}
	if (*type == bpf_htons(ETH_P_IPV6) && (void *)(ip6 + 1) <= end) {
		__builtin_memcpy(key->address, &ip6->daddr, 16);
		return 1;
	}
	return 0;
}

/* An uplink: packets to this node's pods to a worker, everything else is the host's. */
SEC("xdp")
int redirect_uplink(struct xdp_md *ctx)
{
	__u32 ifindex = ctx->ingress_ifindex, queue = ctx->rx_queue_index, *slot;
	struct prefix key = {};
	int action = XDP_DROP, found = destination(ctx, &key);

	if (!found || (found > 0 && !bpf_map_lookup_elem(&pod_cidrs, &key)))
		return XDP_PASS;
	slot = bpf_map_lookup_elem(&uplinks, &ifindex);
	if (slot && queue < MAX_QUEUES)
		action = bpf_redirect_map(&uplink_sockets, *slot * MAX_QUEUES + queue, XDP_DROP);
	if (action != XDP_REDIRECT)
		count(LOSS_UPLINK_SOCKET);
	return action;
}

char LICENSE[] SEC("license") = "GPL";
