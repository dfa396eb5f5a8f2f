"""A package for ROS 2: a node that receives observations and publishes actions. Checked against the published layout alone."""

from sb3_sparse.export.targets.parts import Target

_PACKAGE = """\
<?xml version="1.0"?>
<package format="3">
  <name>@LIBRARY@</name>
  <version>1.0.0</version>
  <description>@SUMMARY@ Written by sb3_sparse @VERSION@.</description>
  <maintainer email="maintainer@example.com">maintainer</maintainer>
  <license>Proprietary</license>
  <buildtool_depend>ament_cmake</buildtool_depend>
  <depend>rclcpp</depend>
  <depend>std_msgs</depend>
  <export>
    <build_type>ament_cmake</build_type>
  </export>
</package>
"""

_LISTS = """\
cmake_minimum_required(VERSION 3.8)
project(@LIBRARY@)

find_package(ament_cmake REQUIRED)
find_package(rclcpp REQUIRED)
find_package(std_msgs REQUIRED)

add_executable(@NAME@_node src/@NAME@_node.cpp)
set_target_properties(@NAME@_node PROPERTIES CXX_STANDARD 17)
target_link_libraries(@NAME@_node rclcpp::rclcpp ${std_msgs_TARGETS})
install(TARGETS @NAME@_node DESTINATION lib/${PROJECT_NAME})

ament_package()
"""

_NODE = """\
// Receives observations of @INPUTS@ numbers on ~/observation and publishes an action of @OUTPUTS@ on ~/action for each.
@REMEMBERS@// A message on ~/reset says that an episode begins.
#include <cstddef>

#include "@NAME@_code.h"
#include "rclcpp/rclcpp.hpp"
@REMEMBERS@#include "std_msgs/msg/empty.hpp"
#include "std_msgs/msg/float32_multi_array.hpp"
#include "std_msgs/msg/int32_multi_array.hpp"

@DECLARE@

class Policy : public rclcpp::Node {
   public:
    Policy() : Node("@LIBRARY@") {
        using Observation = std_msgs::msg::Float32MultiArray;
        publisher_ = create_publisher<std_msgs::msg::@KIND@MultiArray>("~/action", 10);
        subscription_ = create_subscription<Observation>(
            "~/observation", 10, [this](const Observation::SharedPtr message) { act(message->data); });
@REMEMBERS@        @NAME@_reset(&state);
@REMEMBERS@        reset_ = create_subscription<std_msgs::msg::Empty>(
@REMEMBERS@            "~/reset", 10, [](const std_msgs::msg::Empty::SharedPtr) { @NAME@_reset(&state); });
    }

   private:
    void act(const std::vector<float> &data) {
        if (data.size() != @INPUTS@) {
            RCLCPP_ERROR(get_logger(), "an observation has %zu numbers and needs @INPUTS@", data.size());
            return;
        }
@READ@
        @CALL@
        std_msgs::msg::@KIND@MultiArray message;
        message.data.assign(action, action + @OUTPUTS@);
        publisher_->publish(message);
    }

    rclcpp::Publisher<std_msgs::msg::@KIND@MultiArray>::SharedPtr publisher_;
    rclcpp::Subscription<std_msgs::msg::Float32MultiArray>::SharedPtr subscription_;
@REMEMBERS@    rclcpp::Subscription<std_msgs::msg::Empty>::SharedPtr reset_;
};

int main(int argc, char **argv) {
    rclcpp::init(argc, argv);
    rclcpp::spin(std::make_shared<Policy>());
    rclcpp::shutdown();
    return 0;
}
"""

ROS2: Target = {
    "@LIBRARY@/package.xml": _PACKAGE,
    "@LIBRARY@/CMakeLists.txt": _LISTS,
    "@LIBRARY@/src/@NAME@_code.h": "@CODE@",
    "@LIBRARY@/src/@NAME@_node.cpp": _NODE,
}
