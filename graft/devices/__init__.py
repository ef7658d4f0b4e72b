"""Classes of devices and of links, and what fits a device's memory."""

from graft.devices.classes import (
    DeviceClass,
    LinkClass,
    Pace,
    affordable_sources,
    assign_device,
    assign_link,
    can_train,
    device_classes,
    equip_domain,
    fitting_architectures,
    link_classes,
)

__all__ = [
    "DeviceClass",
    "LinkClass",
    "Pace",
    "affordable_sources",
    "assign_device",
    "assign_link",
    "can_train",
    "device_classes",
    "equip_domain",
    "fitting_architectures",
    "link_classes",
]
