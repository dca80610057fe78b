/* SPDX-License-Identifier: GPL-2.0 */
/* The marks that frames on the hub carry in a MAC address: 06 | kind | ifindex, big endian.
 * The Rust side is dataplane/wire/src/hub.rs; a test of this crate keeps both equal. */
#pragma once

#define HUB_MARK 0x06

enum hub_kind {
	HUB_HOST = 0,
	HUB_POD = 1,	   /* steering: to the gateway; delivery: to the pod */
	HUB_POD_GROUP = 2, /* steering: to a multicast or broadcast address */
	HUB_POD_OTHER = 3, /* steering: to some other address */
	HUB_HOST_TO_POD = 4,
	HUB_FORWARDED = 5, /* steering: by the host for somebody else; interface 0: to the hub */
};
